"""Each rule of the segmenter once, on logs made for it."""

from itertools import pairwise

import msgpack
import pytest

from services.vad_worker import rules
from services.vad_worker.segmenter import Segmenter
from services.vad_worker.windows import Windows
from shared.audio import ms_to_samples
from shared.messages import Abandoned, At, Attached, Dropped, Notice, Segment, SessionSettings, Started
from shared.sessions import item_id
from tests.unit.segmenting import SID, Log, Owner, events_of, of_kind, shape

W = 512
FINISHED = "vadfinished client"


def segments(log: Log) -> list[Segment]:
    return of_kind(events_of(log), Segment)


# --- announcing -----------------------------------------------------------------------------------------


def test_silence_gives_no_events_but_the_last() -> None:
    assert shape(events_of(Log().hush(10_000).finish())) == [FINISHED]


def test_an_item_is_announced_after_250_ms_of_speech() -> None:
    log = Log().play(100 * W, 0.0).play(7 * W, 0.9).hush(1000).finish()
    assert shape(events_of(log)) == [FINISHED]
    log = Log().play(100 * W, 0.0).play(8 * W, 0.9).hush(1000).finish()
    started, *_ = events_of(log)
    assert isinstance(started, Started)
    assert started.at.sample == 108 * W


def test_start_is_dated_back_by_the_pre_roll() -> None:
    started, *_ = events_of(Log(prefix_padding_ms=300).play(100 * W, 0.0).play(10 * W, 0.9).finish())
    assert started.start == 100 * W - ms_to_samples(300)
    started, *_ = events_of(Log(prefix_padding_ms=300).play(5 * W, 0.0).play(10 * W, 0.9).finish())
    assert started.start == 0


def test_speech_may_be_scattered_over_400_ms_and_no_more() -> None:
    def scattered(gap: int) -> Log:
        return Log().play(50 * W, 0.0).play(4 * W, 0.9).play(gap * W, 0.1).play(4 * W, 0.9).finish()

    assert shape(events_of(scattered(4))) == ["started 0", "segment 0 finish", FINISHED]
    assert shape(events_of(scattered(5))) == [FINISHED]


def test_a_shorter_minimum_announces_sooner_and_a_longer_one_means_all_of_400_ms() -> None:
    started, *_ = events_of(Log(min_speech_ms=60).play(50 * W, 0.0).play(9 * W, 0.9).finish())
    assert started.at.sample == 52 * W
    started, *_ = events_of(Log(min_speech_ms=900).play(50 * W, 0.0).play(20 * W, 0.9).finish())
    assert started.at.sample == 62 * W


def test_a_start_is_never_before_the_end_of_the_last_item() -> None:
    log = Log(silence_ms=200, prefix_padding_ms=2000).hush(500).say(1000).hush(320).say(1000).finish()
    first, second = segments(log)
    assert first.cause == "silence"
    assert second.start == first.end


def test_speech_of_a_closed_item_does_not_announce_the_next() -> None:
    """At 200 ms of silence the last 400 ms still hold speech windows of the item before."""
    log = Log(silence_ms=200).hush(500).say(1000).hush(224).say(96).hush(1000).finish()
    assert shape(events_of(log)) == ["started 0", "segment 0 silence", FINISHED]


def test_item_id_is_that_of_the_first_ordinal() -> None:
    events = events_of(Log(max_segment_ms=2000).say(5000).finish())
    assert {event.item for event in of_kind(events, Segment)} == {item_id(SID, 0)}


# --- ending by silence ----------------------------------------------------------------------------------


def test_silence_ends_an_item_at_the_moment_of_decision() -> None:
    [segment] = segments(Log(silence_ms=800).play(20 * W, 0.9).play(50 * W, 0.0).finish())
    assert segment.cause == "silence"
    assert segment.end == segment.at.sample == 45 * W
    assert segment.speech == 20 * W


def test_the_engine_gets_a_tail_of_the_silence_only() -> None:
    log = Log(silence_ms=800).play(20 * W, 0.9).play(50 * W, 0.0).finish()
    [segment] = segments(log)
    assert log.range_of(segment.claim) == (0, 20 * W + rules.TAIL)


def test_a_silence_shorter_than_the_tail_is_taken_whole() -> None:
    log = Log(silence_ms=200).play(20 * W, 0.9).play(50 * W, 0.0).finish()
    [segment] = segments(log)
    assert log.range_of(segment.claim) == (0, segment.end)


def test_between_the_thresholds_an_item_stays_open_but_none_begins() -> None:
    assert shape(events_of(Log(threshold=0.5).say(5000, prob=0.4).finish())) == [FINISHED]
    log = Log(threshold=0.5).say(500).say(5000, prob=0.36).say(500, prob=0.34).hush(1000).finish()
    [segment] = segments(log)
    assert segment.at.sample == pytest.approx(ms_to_samples(5500 + 800), abs=W)


def test_a_low_threshold_still_hears_silence() -> None:
    log = Log(threshold=0.1).say(500).hush(2000, prob=0.04).finish()
    assert shape(events_of(log)) == ["started 0", "segment 0 silence", FINISHED]


def test_segment_carries_settings_and_tenant() -> None:
    asked = {
        "language": "de",
        "context_hash": "h",
        "user": "u",
        "min_text_length": 2,
        "needs": ("asr", "verify"),
        "gated": True,
    }
    [segment] = segments(Log(**asked).say(1000).finish())
    assert {name: getattr(segment, name) for name in asked} == asked
    assert (segment.tenant, segment.mode) == ("acme", "vad")


# --- long speech ----------------------------------------------------------------------------------------


def test_long_speech_is_cut_at_its_best_pause() -> None:
    log = Log().say(25_000).say(320, prob=0.4).say(10_000).hush(1000).finish()
    first, second = segments(log)
    assert shape(events_of(log)) == ["started 0", "segment 0 max on", "segment 1 silence", FINISHED]
    assert ms_to_samples(25_000) < first.end < ms_to_samples(25_320)
    assert first.at.sample > ms_to_samples(30_000)
    assert second.start == first.end
    assert log.range_of(first.claim) == (0, first.end)


def test_of_equal_pauses_the_quietest_is_taken() -> None:
    log = Log().say(22_000).say(320, rms=0.02).say(4_000).say(320, rms=0.05).say(10_000).finish()
    assert ms_to_samples(22_000) < segments(log)[0].end < ms_to_samples(22_320)


def test_pauses_in_the_first_two_thirds_are_no_place_to_cut() -> None:
    log = Log().say(10_000).hush(500).say(22_000).finish()
    assert segments(log)[0].end > ms_to_samples(20_000)


def test_no_segment_is_longer_than_allowed_and_an_item_neither() -> None:
    found = segments(Log(max_segment_ms=30_000, max_item_ms=60_000).say(200_000).finish())
    assert all(segment.claim.n <= ms_to_samples(30_000) for segment in found)
    spans: dict[str, int] = {}
    for segment in found:
        spans[segment.item] = spans.get(segment.item, 0) + segment.end - segment.start
    assert len(spans) > 3
    assert all(span <= ms_to_samples(60_000) for span in spans.values())
    assert all(a.end == b.start for a, b in pairwise(found))


def test_speech_beyond_the_longest_item_goes_on_in_a_new_one_at_the_cut() -> None:
    events = events_of(Log(max_segment_ms=4000, max_item_ms=8000).say(12_000).finish())
    assert shape(events)[:4] == ["started 0", "segment 0 max on", "segment 1 max", "started 2"]
    cut, started = events[2], events[3]
    assert started.start == cut.end
    assert started.at == cut.at
    assert started.item == item_id(SID, 2)


def test_after_a_cut_in_a_pause_a_single_word_begins_the_new_item() -> None:
    """The item would still be open without the cut: a word too short to announce one is not lost."""
    log = Log(max_segment_ms=4000, max_item_ms=4000, silence_ms=800)
    events = events_of(log.say(3700).hush(480).say(96).hush(2000).finish())
    assert shape(events) == ["started 0", "segment 0 max", "started 1", "segment 1 silence", FINISHED]
    assert events[2].start == events[1].end


def test_after_a_cut_and_a_silence_speech_is_announced_as_ever() -> None:
    log = Log(max_segment_ms=4000, max_item_ms=4000, silence_ms=800)
    events = events_of(log.say(3700).hush(1500).say(96).hush(2000).finish())
    assert shape(events) == ["started 0", "segment 0 max", FINISHED]


def test_a_cut_item_that_ends_in_silence_drops_its_last_ordinal() -> None:
    log = Log(max_segment_ms=4000, silence_ms=1500).say(3800).hush(3000).finish()
    events = events_of(log)
    assert shape(events) == ["started 0", "segment 0 max on", "dropped 1 no_speech", FINISHED]
    assert of_kind(events, Dropped)[0].ends_item


# --- manual mode ----------------------------------------------------------------------------------------


def test_manual_buffer_is_one_item_with_everything_in_it() -> None:
    log = Log(mode="manual").hush(2000).say(1000).hush(3000).commit().finish()
    started, segment, _ = events_of(log)
    assert shape(events_of(log)) == ["started 0", "segment 0 commit", FINISHED]
    assert (started.mode, started.start, segment.mode) == ("manual", 0, "manual")
    assert log.range_of(segment.claim) == (0, log.pos) == (segment.start, segment.end)


def test_manual_item_begins_with_100_ms_of_audio() -> None:
    assert shape(events_of(Log(mode="manual").play(4 * W - 1, 0.9).finish())) == [
        "started 0",
        "segment 0 finish",
        FINISHED,
    ]
    started, *_ = events_of(Log(mode="manual").play(40 * W, 0.9).finish())
    assert started.at.sample == 4 * W


def test_commit_takes_samples_that_fill_no_window_yet() -> None:
    log = Log(mode="manual").play(10 * W + 300, 0.9).commit().play(10 * W, 0.9).commit().finish()
    first, second = segments(log)
    assert (first.end, second.start, second.end) == (10 * W + 300, 10 * W + 300, 20 * W + 300)
    assert log.range_of(second.claim) == (first.end, log.pos)


def test_commit_of_a_buffer_that_no_window_announced_opens_and_closes_it() -> None:
    log = Log(mode="manual").play(3 * W + 80, 0.9).commit("c1").finish()
    started, segment, _ = events_of(log)
    assert shape(events_of(log)) == ["started 0", "segment 0 commit", FINISHED]
    assert started.at == segment.at


def test_commit_of_less_than_100_ms_is_refused_and_keeps_the_audio() -> None:
    log = Log(mode="manual").play(1599, 0.9).commit("c1").play(W, 0.9).commit("c2").finish()
    events = events_of(log)
    assert shape(events) == ["notice empty_commit", "started 0", "segment 0 commit", FINISHED]
    assert (events[0].event_id, events[0].n) == ("c1", 1599)
    assert log.range_of(events[2].claim) == (0, log.pos)


def test_commit_of_silence_is_dropped() -> None:
    events = events_of(Log(mode="manual").hush(2000).commit().finish())
    assert shape(events) == ["started 0", "dropped 0 no_speech", FINISHED]


def test_a_buffer_of_exactly_60_s_is_one_item() -> None:
    log = Log(mode="manual").say(60_000).commit().finish()
    found = segments(log)
    assert len({segment.item for segment in found}) == 1
    assert [segment.ends_item for segment in found] == [False, False, True]
    assert found[-1].cause == "commit"


def test_a_longer_buffer_is_committed_and_goes_on_losing_nothing() -> None:
    log = Log(mode="manual").say(75_000).commit().finish()
    found = segments(log)
    assert len({segment.item for segment in found}) == 2
    assert found[0].start == 0
    assert found[-1].end == log.pos
    assert all(a.end == b.start for a, b in pairwise(found))


def test_a_long_silent_piece_of_a_manual_item_is_dropped_and_the_item_goes_on() -> None:
    log = Log(mode="manual", max_segment_ms=4000).hush(5000).say(1000).commit().finish()
    assert shape(events_of(log)) == ["started 0", "dropped 0 no_speech on", "segment 1 commit", FINISHED]


def test_finish_flushes_a_manual_buffer() -> None:
    log = Log(mode="manual").say(500).commit().say(90).finish()
    assert shape(events_of(log)) == ["started 0", "segment 0 commit", FINISHED]
    log = Log(mode="manual").say(500).commit().say(100).finish()
    assert shape(events_of(log))[2:] == ["started 1", "segment 1 finish", FINISHED]


# --- commit, clear, reset, mode, attached ------------------------------------------------------------------


def test_commit_in_vad_mode_closes_what_is_open() -> None:
    log = Log().say(1000).commit().hush(100).commit("late").finish()
    events = events_of(log)
    assert shape(events) == ["started 0", "segment 0 commit", "notice commit_in_vad_mode", FINISHED]
    assert events[1].end == ms_to_samples(1000)
    assert events[2].event_id == "late"


def test_clear_abandons_the_open_item_and_moves_the_boundary() -> None:
    log = Log(prefix_padding_ms=2000).say(1000).clear("x1").say(1000).finish()
    events = events_of(log)
    assert shape(events)[:3] == ["started 0", "abandoned 0 cleared", "notice cleared"]
    assert events[2].event_id == "x1"
    assert events[2].closed == 1
    assert of_kind(events, Started)[1].start == ms_to_samples(1000)


def test_clear_forgets_speech_that_was_not_announced() -> None:
    log = Log().hush(500).say(192).clear().say(192).hush(1000).finish()
    assert shape(events_of(log)) == ["notice cleared", FINISHED]


def test_clear_empties_a_manual_buffer() -> None:
    log = Log(mode="manual").say(2000).clear().say(50).commit().finish()
    assert shape(events_of(log)) == [
        "started 0",
        "abandoned 0 cleared",
        "notice cleared",
        "notice empty_commit",
        FINISHED,
    ]


def test_reset_is_a_clear_with_another_name() -> None:
    events = events_of(Log().say(1000).reset("r1").finish())
    assert shape(events) == ["started 0", "abandoned 0 reset", "notice reset", FINISHED]
    assert of_kind(events, Notice)[0].event_id == "r1"


def test_mode_records_are_refused_for_now() -> None:
    events = events_of(Log().hush(100).mode("m1").finish())
    assert shape(events) == ["notice mode_error", FINISHED]
    assert of_kind(events, Notice)[0].event_id == "m1"


def test_attached_changes_nothing() -> None:
    owner = Owner(Log().say(1000)).run()
    owner.segmenter.control(99, Attached(ep=2, ix=99, prev=98, pos=owner.log.pos, ingress="b"))
    assert owner.segmenter.decide() is None


# --- settings -------------------------------------------------------------------------------------------


def test_settings_apply_at_once_while_nothing_is_open() -> None:
    log = Log(silence_ms=800).hush(500).change(silence_ms=200).say(1000).hush(2000).finish()
    assert segments(log)[0].end == pytest.approx(ms_to_samples(1500 + 200), abs=W)


def test_settings_wait_for_the_next_item_while_one_is_open() -> None:
    log = Log(silence_ms=800, language="en").say(1000).change(silence_ms=200, language="zh")
    first, second = segments(log.hush(2000).say(1000).hush(2000).finish())
    assert first.end == pytest.approx(ms_to_samples(1000 + 800), abs=W)
    assert second.end == pytest.approx(ms_to_samples(4000 + 200), abs=W)
    assert (first.language, second.language) == ("en", "zh")


def test_a_cut_within_an_item_is_no_next_item() -> None:
    log = Log(max_segment_ms=4000, language="en").say(2000).change(language="zh").say(4000).finish()
    assert [segment.language for segment in segments(log)] == ["en", "en"]


def test_from_manual_to_vad_the_buffer_is_committed() -> None:
    log = Log(mode="manual").say(1000).change(mode="vad").say(1000).hush(1000).finish()
    events = events_of(log)
    assert shape(events)[:2] == ["started 0", "segment 0 commit"]
    assert events[1].end == ms_to_samples(1000)
    assert [(s.mode, s.start) for s in of_kind(events, Started)[1:]] == [("vad", ms_to_samples(1000))]


def test_from_vad_to_manual_the_open_item_ends_by_silence_and_the_buffer_begins_there() -> None:
    log = Log(silence_ms=800).say(1000).change(mode="manual").hush(1000).say(1000).commit().finish()
    first, second = segments(log)
    assert (first.mode, first.cause) == ("vad", "silence")
    assert (second.mode, second.cause) == ("manual", "commit")
    assert second.start == first.end
    assert second.end == log.pos


def test_from_vad_to_manual_without_an_item_the_buffer_begins_at_once() -> None:
    log = Log().hush(3000).change(mode="manual").say(1000).commit().finish()
    [segment] = segments(log)
    assert segment.start == ms_to_samples(3000)


# --- finish ---------------------------------------------------------------------------------------------


def test_finish_flushes_an_open_item() -> None:
    log = Log().say(1000).finish()
    events = events_of(log)
    assert shape(events) == ["started 0", "segment 0 finish", FINISHED]
    assert (events[1].end, events[2].ordinals) == (log.pos, 1)


def test_finish_with_discard_abandons_it() -> None:
    events = events_of(Log().say(1000).finish(discard=True))
    assert shape(events) == ["started 0", "abandoned 0 closed", "vadfinished closed"]
    assert events[-1].ordinals == 1
    assert shape(events_of(Log(mode="manual").say(90).finish(discard=True))) == ["vadfinished closed"]


def test_speech_too_short_to_be_announced_is_no_item() -> None:
    assert shape(events_of(Log().hush(1000).say(200).finish())) == [FINISHED]


def test_nothing_follows_the_end() -> None:
    owner = Owner(Log().say(1000).finish()).run()
    assert owner.segmenter.finished
    assert owner.segmenter.decide() is None


# --- filters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"min_segment_ms": 3000}, "too_short"),
        ({"min_rms": 0.2}, "too_quiet"),
        ({"min_speech_ratio": 0.9}, "low_speech"),
    ],
)
def test_filters_drop_a_segment(settings: dict[str, float], reason: str) -> None:
    log = Log(**settings).hush(1000).say(1000).hush(2000).finish()
    assert shape(events_of(log)) == ["started 0", f"dropped 0 {reason}", FINISHED]


def test_filters_let_good_segments_pass() -> None:
    log = Log(min_segment_ms=300, min_rms=0.01, min_speech_ratio=0.3).hush(1000).say(1000).hush(2000)
    assert shape(events_of(log.finish())) == ["started 0", "segment 0 silence", FINISHED]


# --- gaps -----------------------------------------------------------------------------------------------


def test_a_gap_closes_the_open_item_with_what_there_is() -> None:
    log = Log().play(50 * W + 100, 0.9).lose(16_000).say(1000).hush(1000).finish()
    events = events_of(log)
    assert shape(events)[:4] == ["started 0", "segment 0 silence", "notice gap", "started 1"]
    assert log.range_of(events[1].claim) == (0, 50 * W + 100)
    assert events[2].n == 16_000
    assert events[2].at.sample == 50 * W + 100 + 16_000
    assert events[3].start >= events[2].at.sample


def test_a_gap_in_a_manual_buffer_ends_its_item_without_a_commit() -> None:
    events = events_of(Log(mode="manual").say(1000).lose(16_000).say(1000).commit().finish())
    assert shape(events) == [
        "started 0",
        "segment 0 max",
        "notice gap",
        "started 1",
        "segment 1 commit",
        FINISHED,
    ]


def test_a_commit_right_after_a_gap_is_answered_too() -> None:
    events = events_of(Log(mode="manual").say(1000).lose(16_000).commit().finish())
    assert shape(events) == ["started 0", "segment 0 max", "notice gap", "notice empty_commit", FINISHED]


def test_an_item_that_another_owner_began_within_our_gap_is_closed_empty() -> None:
    """It read the records before they expired; we never saw them."""
    log = Log().hush(1000).lose(160_000).hush(1000).finish()
    started = Started(ev=0, closed=0, at=At(seq=40, sample=100_000), k=0, item="i", start=90_000)
    events = Owner(log, forced=[started]).run().events
    assert shape(events) == ["started 0", "dropped 0 gap", "notice gap", FINISHED]
    assert of_kind(events, Dropped)[0].start == of_kind(events, Dropped)[0].end == 90_000


# --- partials -------------------------------------------------------------------------------------------


def test_the_first_partial_comes_with_the_announcement() -> None:
    log = Log(partial_every_ms=500).hush(1000).say(3000).hush(2000).finish()
    owner = Owner(log).run()
    first = owner.partials[0]
    assert (first.k, first.item) == (0, item_id(SID, 0))
    assert first.end == of_kind(owner.events, Started)[0].at.sample


def test_partials_keep_their_distance_cover_the_segment_so_far_and_stop_in_silence() -> None:
    log = Log(partial_every_ms=500).hush(1000).say(3000).hush(5000).finish()
    owner = Owner(log).run()
    [started] = of_kind(owner.events, Started)
    ends = [partial.end for partial in owner.partials]
    assert 5 <= len(ends) <= 7
    assert all(b - a >= ms_to_samples(500) for a, b in pairwise(ends[:-1]))
    assert ends[-1] <= ms_to_samples(4000) + rules.TAIL + W
    assert all(log.range_of(p.claim) == (started.start, p.end) for p in owner.partials)


def test_no_partials_if_the_session_wants_none() -> None:
    assert Owner(Log(partial_every_ms=0).say(3000).finish()).run().partials == []


def test_silence_in_a_manual_buffer_asks_for_no_partial() -> None:
    assert Owner(Log(mode="manual").hush(3000).finish()).run().partials == []


def test_after_a_cut_partials_belong_to_the_next_ordinal() -> None:
    owner = Owner(Log(max_segment_ms=4000).say(6000).finish()).run()
    cut = of_kind(owner.events, Segment)[0]
    later = [partial for partial in owner.partials if partial.k == 1]
    assert later
    assert all(owner.log.range_of(partial.claim)[0] == cut.end for partial in later)


# --- taking over ----------------------------------------------------------------------------------------


def test_a_commit_that_another_owner_answered_is_not_answered_again() -> None:
    log = Log(mode="manual").say(1000).commit().finish()
    truth = events_of(log)
    assert Owner(log, forced=truth[:2]).run().events == truth
    log = Log(mode="manual").say(50).commit().finish()
    truth = events_of(log)
    assert Owner(log, forced=truth[:1]).run().events == truth


def test_a_clear_that_another_owner_answered_by_half_gets_its_other_half() -> None:
    log = Log().say(1000).clear().hush(100).finish()
    truth = events_of(log)
    assert isinstance(truth[1], Abandoned)
    assert Owner(log, forced=truth[:2]).run().events == truth
    assert Owner(log, forced=truth[:3]).run().events == truth


def test_an_item_announced_by_a_keener_version_ends_by_silence_and_is_recognised() -> None:
    """We hear no speech in it: it was announced, so that it has to end, and its text is the engine's to say."""
    log = Log(threshold=0.3).say(1000, prob=0.4).hush(2000).finish()
    keener = events_of(log)
    deaf = Log(threshold=0.7).say(1000, prob=0.4).hush(2000).finish()
    events = Owner(deaf, forced=keener[:1]).run().events
    assert shape(events) == ["started 0", "segment 0 silence", FINISHED]
    assert events[1].end == keener[0].at.sample + ms_to_samples(800)


def test_a_snapshot_is_small() -> None:
    owner = Owner(Log().say(29_900)).run()
    assert len(msgpack.packb(owner.segmenter.snapshot())) < 16_000
    owner = Owner(Log().hush(60_000)).run()
    assert len(msgpack.packb(owner.segmenter.snapshot())) < 2_000


def test_a_snapshot_knows_who_and_where() -> None:
    owner = Owner(Log().say(1000).hush(1000).say(500)).run()
    copy = Segmenter.restore(SID, owner.segmenter.snapshot())
    assert (copy.tenant, copy.pool, copy.ev, copy.k, copy.closed) == ("acme", "p", 3, 1, 1)
    assert copy.sample == owner.segmenter.sample
    assert copy.settings == SessionSettings()


# --- windows --------------------------------------------------------------------------------------------


def test_windows_do_not_depend_on_how_audio_is_divided() -> None:
    pcm = bytes(range(256)) * 40
    whole = Windows().push(0, pcm)
    windows, parts = Windows(), []
    for first in range(0, len(pcm), 334):
        parts += windows.push(first // 2, pcm[first : first + 334])
        windows = Windows.restore(windows.snapshot())
    assert [(end, list(audio), rms) for end, audio, rms in parts] == [
        (end, list(audio), rms) for end, audio, rms in whole
    ]
    assert (windows.base, len(windows.remainder)) == (10 * W - W + 512, 0)


def test_windows_begin_anew_at_a_reset() -> None:
    windows = Windows()
    windows.push(0, bytes(2 * 700))
    windows.reset(700)
    [(end, audio, rms)] = windows.push(700, b"\x00\x40" * W)
    assert (end, audio[0], rms) == (700 + W, 0.5, 0.5)


def test_windows_refuse_samples_out_of_place() -> None:
    windows = Windows()
    windows.push(0, bytes(200))
    with pytest.raises(ValueError, match="sample 101 do not follow sample 100"):
        windows.push(101, bytes(200))

"""The segmenter under control records: manual mode, commit, clear, settings, finish; gaps and take-overs."""

from itertools import pairwise

import msgpack
import pytest

from services.vad_worker.segmenter import Segmenter
from shared.audio import ms_to_samples
from shared.messages import Abandoned, At, Attached, Dropped, Notice, Segment, SessionSettings, Started
from tests.unit.segmenting import SID, Log, Owner, events_of, of_kind, shape

W = 512
FINISHED = "vadfinished client"


def segments(log: Log) -> list[Segment]:
    return of_kind(events_of(log), Segment)


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

"""The rules of VAD mode once each, on logs made for it: what begins, what ends, what is cut."""

from itertools import pairwise

import pytest

from services.vad_worker import rules
from shared.audio import ms_to_samples
from shared.messages import Dropped, Segment, Started
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


def test_where_no_pause_can_be_looked_for_a_cut_still_falls_between_windows() -> None:
    """A window in two segments would belong to neither's speech."""
    log = Log(max_segment_ms=1000, max_item_ms=2000, prefix_padding_ms=0, min_speech_ms=0, silence_ms=200)
    found = segments(log.play(72_526, 0.9).play(2664, 0.0).play(16_203, 0.9).play(1600, 0.0).finish())
    assert {segment.end % W for segment in found if segment.cause == "max"} == {0}


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
    assert Owner(log, reborn=True).run().events == events


def test_after_a_cut_and_a_silence_speech_is_announced_as_ever() -> None:
    log = Log(max_segment_ms=4000, max_item_ms=4000, silence_ms=800)
    events = events_of(log.say(3700).hush(1500).say(96).hush(2000).finish())
    assert shape(events) == ["started 0", "segment 0 max", FINISHED]


def test_a_cut_item_that_ends_in_silence_drops_its_last_ordinal() -> None:
    log = Log(max_segment_ms=4000, silence_ms=1500).say(3800).hush(3000).finish()
    events = events_of(log)
    assert shape(events) == ["started 0", "segment 0 max on", "dropped 1 no_speech", FINISHED]
    assert of_kind(events, Dropped)[0].ends_item


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

"""What holds for every log: the chain of events, and that it does not depend on who reads the log and how."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.vad_worker.detectors.base import WINDOW
from services.vad_worker.rules import MIN_BUFFER
from shared.audio import ms_to_samples
from shared.messages import (
    Abandoned,
    AnyVadEvent,
    Audio,
    Clear,
    Commit,
    Dropped,
    Notice,
    Opened,
    Reset,
    Segment,
    SessionSettings,
    SettingsChanged,
    Started,
    VadFinished,
    pack,
)
from tests.unit.segmenting import Log, Owner, of_kind

few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

# Segments and items may be much shorter than in earnest, so that cuts are frequent.
session_settings = st.builds(
    SessionSettings,
    mode=st.sampled_from(["vad", "vad", "manual"]),
    threshold=st.sampled_from([0.2, 0.5, 0.7]),
    silence_ms=st.sampled_from([200, 400, 800]),
    prefix_padding_ms=st.sampled_from([0, 100, 300, 2000]),
    min_speech_ms=st.sampled_from([0, 60, 250]),
    max_segment_ms=st.sampled_from([1000, 2500, 6000]),
    max_item_ms=st.sampled_from([2000, 5000, 11_000]),
    partial_every_ms=st.sampled_from([0, 200, 500]),
    min_segment_ms=st.sampled_from([0, 0, 0, 800]),
    min_speech_ratio=st.sampled_from([0.0, 0.0, 0.0, 0.3]),
)
lengths = st.one_of(st.integers(1, 2000), st.integers(1, 30_000), st.integers(1, 120_000))
probabilities = st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.6, 0.95])
sounds = st.tuples(st.just("play"), lengths, probabilities)
words = st.tuples(st.just("play"), st.integers(5000, 40_000), st.just(0.95))
pauses = st.tuples(st.just("play"), st.integers(2000, 30_000), st.just(0.0))
seldom = st.sampled_from([False, False, False, True])
controls = st.one_of(
    st.tuples(st.sampled_from(["commit", "commit", "clear", "reset", "mode"])),
    st.tuples(st.just("change"), session_settings),
)
steps = st.lists(st.one_of(sounds, words, pauses, words, pauses, controls), min_size=1, max_size=14)
audio_steps = st.lists(st.one_of(sounds, words, pauses), min_size=1, max_size=14)


def log_of(first: SessionSettings, steps: list[tuple[Any, ...]], frame: int, discard: bool = False) -> Log:
    log = Log(first, frame)
    for name, *details in steps:
        if name == "change":
            log.change(**msgspec.structs.asdict(details[0]))
        else:
            getattr(log, name)(*details)
    return log.finish(discard=discard)


logs = st.builds(log_of, session_settings, steps, st.sampled_from([320, 1600, 7777]), seldom)


# --- what a chain is ------------------------------------------------------------------------------------


def check_chain(events: list[AnyVadEvent], log: Log) -> None:
    """SPEC.md I4, and what clients rely on."""
    ordinal, closed, floor = 0, 0, 0
    item: str | None = None
    begun: set[str] = set()
    for ev, event in enumerate(events):
        assert event.ev == ev
        assert ev == 0 or event.at >= events[ev - 1].at
        if isinstance(event, Started):
            assert item is None
            assert event.k == ordinal
            assert event.item not in begun
            assert floor <= event.start <= event.at.sample
            item = event.item
            begun.add(item)
        elif isinstance(event, Segment | Dropped | Abandoned):
            assert (event.k, event.item) == (ordinal, item)
            ordinal, closed = ordinal + 1, closed + 1
            if not isinstance(event, Abandoned):
                assert floor <= event.start <= event.end <= event.at.sample
                floor = event.end
            if isinstance(event, Abandoned) or event.ends_item:
                item = None
        assert event.closed == closed
    last = events[-1]
    assert isinstance(last, VadFinished)
    assert (last.ordinals, item) == (ordinal, None)
    assert len(of_kind(events, VadFinished)) == 1
    assert last.at.sample == log.pos


def check_cuts(events: list[AnyVadEvent]) -> None:
    """A cut leaves no gap: the next ordinal of the item begins where the last one ended."""
    links = [event for event in events if isinstance(event, Started | Segment | Dropped | Abandoned)]
    for before, after in pairwise(links):
        if isinstance(before, Started) or not getattr(before, "ends_item", True):
            assert after.item == before.item
            if not isinstance(after, Abandoned):
                assert after.start == (before.start if isinstance(before, Started) else before.end)


def check_claims(events: list[AnyVadEvent], log: Log) -> None:
    """A claim begins where its segment does, has all of it up to its end, and is no longer than allowed."""
    for segment in of_kind(events, Segment):
        start, stop = log.range_of(segment.claim)
        assert start == segment.start < stop <= segment.end
        if segment.mode == "manual" or segment.cause == "max":
            assert stop == segment.end
        assert 0 <= segment.speech <= segment.end - segment.start + WINDOW


def check_answers(events: list[AnyVadEvent], log: Log) -> None:
    """Each commit, clear and reset is answered once, where it stands."""
    for seq, record in log.records:
        if isinstance(record, Commit | Clear | Reset):
            answers = [event for event in events if event.at.seq == seq and is_answer(event)]
            assert len(answers) == 1


def is_answer(event: AnyVadEvent) -> bool:
    return isinstance(event, Notice) or getattr(event, "cause", "") == "commit"


@few
@given(logs)
def test_every_log_gives_a_good_chain(log: Log) -> None:
    owner = Owner(log).run()
    check_chain(owner.events, log)
    check_cuts(owner.events)
    check_claims(owner.events, log)
    check_answers(owner.events, log)


@few
@given(session_settings, audio_steps)
def test_nothing_is_longer_than_it_may_be(first: SessionSettings, steps: list[tuple[Any, ...]]) -> None:
    longest, item_longest = ms_to_samples(first.max_segment_ms), ms_to_samples(first.max_item_ms)
    begin = 0
    for event in Owner(log_of(first, steps, 1600)).run().events:
        if isinstance(event, Started):
            begin = event.start
        if isinstance(event, Segment):
            assert event.claim.n <= longest
            if event.cause == "max":
                assert event.end - begin <= item_longest


@few
@given(session_settings, audio_steps)
def test_manual_mode_loses_no_sample(first: SessionSettings, steps: list[tuple[Any, ...]]) -> None:
    log = log_of(msgspec.structs.replace(first, mode="manual"), steps, 1600)
    ends = 0
    for event in Owner(log).run().events:
        if isinstance(event, Segment | Dropped):
            assert event.start == ends
            ends = event.end
    assert log.pos - ends < MIN_BUFFER


@few
@given(session_settings, audio_steps)
def test_vad_mode_loses_no_run_of_speech(first: SessionSettings, steps: list[tuple[Any, ...]]) -> None:
    first = msgspec.structs.replace(first, mode="vad", min_segment_ms=0, min_speech_ratio=0.0)
    log = log_of(first, steps, 1600)
    taken = [log.range_of(event.claim) for event in of_kind(Owner(log).run().events, Segment)]
    for run in runs_of_speech(log, first.threshold):
        if len(run) >= 8:
            assert all(any(a <= end - WINDOW and end <= b for a, b in joined(taken)) for end in run)


def runs_of_speech(log: Log, threshold: float) -> list[list[int]]:
    """Ends of the windows of each unbroken stretch of speech."""
    runs: list[list[int]] = [[]]
    for end in range(WINDOW, log.pos + 1, WINDOW):
        if log.sound(end - WINDOW // 2)[0] >= threshold:
            runs[-1].append(end)
        elif runs[-1]:
            runs.append([])
    return runs


def joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that touch are one."""
    found: list[tuple[int, int]] = []
    for start, stop in ranges:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


# --- who reads, and how ---------------------------------------------------------------------------------


def neutral(events: list[AnyVadEvent], log: Log) -> list[bytes]:
    """Events without what names records: claims as ranges of samples."""
    return [pack(_without_records(event, log)) for event in events]


def _without_records(event: AnyVadEvent, log: Log) -> AnyVadEvent:
    changes: dict[str, Any] = {"at": msgspec.structs.replace(event.at, seq=0)}
    if isinstance(event, Segment):
        start, stop = log.range_of(event.claim)
        changes["claim"] = msgspec.structs.replace(event.claim, frames=(), offset=start, n=stop - start)
    return msgspec.structs.replace(event, **changes)


@few
@given(session_settings, steps, st.integers(200, 40_000), st.integers(200, 40_000))
def test_events_do_not_depend_on_how_audio_is_divided(
    first: SessionSettings, steps: list[tuple[Any, ...]], frame: int, other: int
) -> None:
    one, two = log_of(first, steps, frame), log_of(first, steps, other)
    a, b = Owner(one).run(), Owner(two).run()
    assert neutral(a.events, one) == neutral(b.events, two)
    assert [p.end for p in a.partials] == [p.end for p in b.partials]


@settings(few, max_examples=30)
@given(logs)
def test_a_segmenter_that_is_stored_and_restored_at_every_step_goes_on_the_same(log: Log) -> None:
    one, two = Owner(log).run(), Owner(log, reborn=True).run()
    assert [pack(event) for event in one.events] == [pack(event) for event in two.events]
    assert one.partials == two.partials
    assert one.snapshot() == two.snapshot()


class Crash:
    """An owner who published a part of its events, and before that stored a checkpoint."""

    def __init__(self, log: Log, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        saved, counts = [], []
        owner = Owner(log)
        for until in range(1, len(log.records) + 1):
            owner.run(until)
            saved.append(owner.snapshot())
            counts.append(len(owner.events))
        self.events = owner.events
        checkpoint = draw(st.integers(0, len(saved) - 1))
        self.published = draw(st.integers(counts[checkpoint], len(owner.events)))
        self.saved = saved[checkpoint]
        self.before = owner.events[: counts[checkpoint]]
        self.forced = owner.events[counts[checkpoint] : self.published]


@few
@given(logs, st.data())
def test_after_a_crash_the_chain_is_what_it_would_have_been(log: Log, data: st.DataObject) -> None:
    crash = Crash(log, data.draw)
    heir = Owner.restored(log, crash.saved, crash.forced).run()
    assert [pack(e) for e in crash.before + heir.events] == [pack(e) for e in crash.events]


@few
@given(logs, st.data())
def test_losing_the_checkpoint_as_well_changes_nothing(log: Log, data: st.DataObject) -> None:
    crash = Crash(log, data.draw)
    heir = Owner(log, forced=crash.events[: crash.published]).run()
    assert [pack(e) for e in heir.events] == [pack(e) for e in crash.events]


def another_version(log: Log, other: SessionSettings) -> Log:
    """The same log, read by code that decides differently: mode and lengths of the session stay."""
    twin = Log(log.settings, log.frame)
    twin.__dict__.update({**log.__dict__, "records": list(log.records)})
    for i, (seq, record) in enumerate(log.records):
        if isinstance(record, Opened | SettingsChanged):
            changed = msgspec.structs.replace(other, mode=record.settings.mode)
            twin.records[i] = (seq, msgspec.structs.replace(record, settings=changed))
    return twin


@few
@given(logs, session_settings, st.data())
def test_a_new_version_continues_an_old_ones_chain(
    log: Log, other: SessionSettings, data: st.DataObject
) -> None:
    crash = Crash(log, data.draw)
    new = another_version(log, other)
    heir = Owner(new, forced=crash.events[: crash.published]).run()
    assert heir.events[: crash.published] == crash.events[: crash.published]
    check_chain(heir.events, log)
    check_cuts(heir.events)
    check_answers(heir.events, log)


@few
@given(logs, session_settings, st.data())
def test_a_new_version_continues_from_an_old_ones_checkpoint(
    log: Log, other: SessionSettings, data: st.DataObject
) -> None:
    crash = Crash(log, data.draw)
    heir = Owner.restored(another_version(log, other), crash.saved, crash.forced)
    heir.segmenter._s.settings = msgspec.structs.replace(other, mode=heir.segmenter.settings.mode)
    events = crash.before + heir.run().events
    check_chain(events, log)
    check_cuts(events)
    check_claims(events[crash.published :], log)
    check_answers(events, log)


# --- gaps -----------------------------------------------------------------------------------------------

holes = st.tuples(st.just("lose"), st.integers(1, 50_000))


@few
@given(
    session_settings,
    st.lists(st.one_of(sounds, words, pauses, controls, holes), min_size=2, max_size=14),
    st.data(),
)
def test_a_log_with_holes_gives_a_chain_too(
    first: SessionSettings, steps: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    log = log_of(first, steps, 1600)
    crash = Crash(log, data.draw)
    check_chain(crash.events, log)
    assert len([e for e in of_kind(crash.events, Notice) if e.code == "gap"]) == len(log.holes)
    spans = {seq: record.n for seq, record in log.records if isinstance(record, Audio)}
    for segment in of_kind(crash.events, Segment):
        assert 0 < segment.claim.n <= sum(spans.values())
    heir = Owner.restored(log, crash.saved, crash.forced).run()
    assert crash.before + heir.events == crash.events

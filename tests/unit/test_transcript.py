"""The transcript: items complete once, in order, with all of their text or not at all."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.dialects.base import (
    ItemAbandoned,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    ItemStopped,
    ItemText,
    Noticed,
    SessionEvent,
    SessionFinished,
)
from services.ingress.transcript import Fact, Transcript
from shared.messages import (
    Abandoned,
    At,
    Claim,
    Dropped,
    Notice,
    Outcome,
    Partial,
    Segment,
    Started,
    VadFinished,
)

LINK: dict[str, Any] = {"ev": 0, "closed": 0, "at": At(seq=1, sample=0)}
CLAIM = Claim(stream="AUDIO_LIVE", frames=(1,), offset=0, n=1)
SECOND = 16_000


def started(k: int, item: str = "A", **more: Any) -> Started:
    return Started(**LINK, k=k, item=item, start=k * SECOND, **more)


def segment(k: int, item: str = "A", *, ends: bool = True, **more: Any) -> Segment:
    where = {"start": k * SECOND, "end": (k + 1) * SECOND, "cause": "silence", "claim": CLAIM}
    return Segment(**LINK, k=k, item=item, ends_item=ends, **where, **more)


def dropped(k: int, item: str = "A", *, ends: bool = True) -> Dropped:
    where = {"start": k * SECOND, "end": (k + 1) * SECOND, "cause": "silence", "reason": "short"}
    return Dropped(**LINK, k=k, item=item, ends_item=ends, **where)


def abandoned(k: int, item: str = "A") -> Abandoned:
    return Abandoned(**LINK, k=k, item=item, reason="cleared")


def outcome(k: int, text: str = "", **more: Any) -> Outcome:
    return Outcome(k=k, text=text, **more)


def partial(k: int, end: int, text: str, item: str = "A") -> Partial:
    return Partial(k=k, item=item, end=end, text=text, language="en")


def events(*facts: Fact) -> list[SessionEvent]:
    transcript = Transcript()
    return [event for fact in facts for event in transcript.receive(fact)]


def completed(told: list[SessionEvent]) -> list[tuple[str, str]]:
    return [(event.item, event.transcript) for event in told if isinstance(event, ItemCompleted)]


def test_an_item_of_one_segment() -> None:
    assert events(
        started(1),
        partial(1, 20_000, "hel"),
        segment(1),
        outcome(1, "Hello.", language="en", emotion="happy", engine_ms=12.5),
    ) == [
        ItemStarted("A", 1000, "vad"),
        ItemText("A", "", "hel", "en"),
        ItemStopped("A", 1000, 2000, "vad", "silence"),
        ItemCompleted("A", "Hello.", "en", "happy", 1000, 2000, 12.5, "Hello."),
    ]


def test_an_item_of_several_segments_is_completed_once_with_all_of_its_text() -> None:
    told = events(
        started(0),
        segment(0, ends=False),
        segment(1, ends=False),
        outcome(0, "One.", engine_ms=1.0),
        partial(2, 9, "thr"),
        outcome(1, "Two.", language="en", engine_ms=2.0),
        segment(2),
        outcome(2, "Three.", language="de", engine_ms=4.0),
    )
    assert told[1:] == [
        ItemText("A", "One.", "", ""),
        ItemText("A", "One.", " thr", "en"),
        ItemText("A", "One. Two.", " thr", "en"),
        ItemStopped("A", 0, 3000, "vad", "silence"),
        ItemCompleted("A", "One. Two. Three.", "en", "", 0, 3000, 7.0, "One. Two. Three."),
    ]


def test_the_end_of_the_item_may_come_after_all_of_its_outcomes() -> None:
    told = events(started(0), segment(0, ends=False), outcome(0, "One."), dropped(1))
    assert told[-2:] == [
        ItemStopped("A", 0, 2000, "vad", "silence"),
        ItemCompleted("A", "One.", "", "", 0, 2000, 0.0, "One."),
    ]


def test_what_a_final_corrects_stays_in_the_text_that_was_told_and_goes_on_behind_it() -> None:
    told = events(
        started(0),
        partial(0, 1, "it was the west of times"),
        partial(0, 2, "it was the west of times it"),
        segment(0),
        outcome(0, "It was the best of times. It was."),
    )
    confirmed = [event.text for event in told if isinstance(event, ItemText)][-1]
    last = told[-1]
    assert isinstance(last, ItemCompleted)
    assert (confirmed, last.transcript) == ("it was the west of", "It was the best of times. It was.")
    assert last.text == "it was the west of times. It was."


def test_a_dropped_item_completes_without_text_but_not_before_the_items_ahead_of_it() -> None:
    told = events(started(0, "A"), segment(0, "A"), started(1, "B"), dropped(1, "B"), outcome(0, "First."))
    assert completed(told) == [("A", "First."), ("B", "")]


def test_a_segment_that_nobody_transcribes_completes_without_text() -> None:
    assert completed(events(started(0), segment(0, needs=("label",)))) == [("A", "")]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (outcome(1, status="failed", reason="audio_expired"), "audio_expired"),
        (outcome(1, status="failed"), "engine_failed"),
        (outcome(1, status="rejected", reason="speaker"), "rejected"),
    ],
)
def test_an_item_with_a_hole_fails_and_tells_nothing_of_its_text(wrong: Outcome, code: str) -> None:
    facts = (started(0), segment(0, ends=False), outcome(0, "secret"), segment(1), wrong)
    failed = events(*facts)[-1]
    assert isinstance(failed, ItemFailed)
    assert failed.code == code
    assert "secret" not in failed.message


def test_an_abandoned_item_gets_nothing_more_and_holds_nobody_up() -> None:
    told = events(
        started(0, "A"),
        segment(0, "A", ends=False),
        started(2, "B"),
        dropped(2, "B"),
        abandoned(1, "A"),
        outcome(0, "late"),
        partial(1, 99, "late", "A"),
        Notice(**LINK, code="cleared", event_id="e1"),
    )
    assert told[3:] == [
        ItemAbandoned("A"),
        ItemCompleted("B", "", "", "", 2000, 3000, 0.0),
        Noticed("cleared", "e1"),
    ]


def test_no_text_before_the_start_or_after_the_completion() -> None:
    assert events(partial(0, 1, "early")) == []
    told = events(started(0), segment(0), outcome(0, "done"), partial(0, 10**6, "late"))
    assert isinstance(told[-1], ItemCompleted)


def test_outcomes_of_other_slots_complete_nothing() -> None:
    assert (
        completed(events(started(0), segment(0), outcome(0, slot="label"), outcome(0, "x", slot="verify")))
        == []
    )


def test_the_end_of_the_session() -> None:
    assert events(VadFinished(**LINK, ordinals=0, reason="idle")) == [SessionFinished("idle")]


def test_a_resume_repeats_the_outcomes_of_open_items_and_so_loses_none_of_their_text() -> None:
    facts = [started(3), segment(3, ends=False), outcome(3, "One."), segment(4), outcome(4, "Two.")]
    for cut in range(len(facts)):
        before = Transcript()
        for fact in facts[:cut]:
            before.receive(fact)
        assert before.floor == (3 if cut else None)
        resumed = Transcript()
        for fact in facts[:cut]:
            if not isinstance(fact, Outcome):
                resumed.receive(fact)
        again = [fact for fact in facts[:cut] if isinstance(fact, Outcome) and fact.k >= (before.floor or 0)]
        rest = [event for fact in again + facts[cut:] for event in resumed.receive(fact)]
        assert completed(rest) == [("A", "One. Two.")]
        assert resumed.floor is None


# --- any session -----------------------------------------------------------------------------------------

ENDINGS = st.sampled_from(["segment", "dropped", "abandoned"])
ITEMS = st.lists(st.tuples(st.integers(0, 2), ENDINGS), max_size=6)


def chain(items: list[tuple[int, str]]) -> list[Fact]:
    """VAD events of items: so many cuts each, and how each ends."""
    facts: list[Fact] = []
    k = 0
    for name, (cuts, ending) in enumerate(items):
        item = f"item{name}"
        facts.append(started(k, item))
        facts += [segment(k + cut, item, ends=False) for cut in range(cuts)]
        k += cuts
        facts.append({"segment": segment, "dropped": dropped, "abandoned": abandoned}[ending](k, item))
        k += 1
    return facts


def merged(facts: list[Fact], data: st.DataObject) -> list[Fact]:
    """Outcomes in ordinal order somewhere behind their segments, and partials anywhere."""
    order: list[Fact] = []
    waiting: list[Outcome] = []
    for fact in facts:
        while waiting and data.draw(st.booleans()):
            order.append(waiting.pop(0))
        order.append(fact)
        if isinstance(fact, Segment):
            status = data.draw(st.sampled_from(["ok", "ok", "failed"]))
            waiting.append(outcome(fact.k, f"t{fact.k}", status=status))
        if data.draw(st.booleans()):
            k = data.draw(st.integers(0, 8))
            order.append(partial(k, data.draw(st.integers(0, 99)), "x y z", f"item{k}"))
    return order + list(waiting)


@given(ITEMS, st.data())
def test_each_item_starts_stops_and_ends_once_and_items_end_in_order(
    items: list[tuple[int, str]], data: st.DataObject
) -> None:
    transcript = Transcript()
    told = [event for fact in merged(chain(items), data) for event in transcript.receive(fact)]
    ends = [event for event in told if isinstance(event, ItemCompleted | ItemFailed)]
    names = [f"item{at}" for at in range(len(items))]
    assert [event.item for event in ends] == [
        n for n, (_, end) in zip(names, items, strict=True) if end != "abandoned"
    ]
    for name, (_, ending) in zip(names, items, strict=True):
        of_item = [event for event in told if getattr(event, "item", "") == name]
        kinds = [type(event) for event in of_item if not isinstance(event, ItemText)]
        last = of_item[-1]
        if ending == "abandoned":
            assert kinds == [ItemStarted, ItemAbandoned]
            assert type(last) is ItemAbandoned
        else:
            assert kinds[:2] == [ItemStarted, ItemStopped]
            assert type(last) in (ItemCompleted, ItemFailed)
        assert type(of_item[0]) is ItemStarted
    assert transcript.floor is None
    assert not transcript._item_of, "what is completed is forgotten"

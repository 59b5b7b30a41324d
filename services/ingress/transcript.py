"""Merged facts of a session, in order, as what a client is told of its items.

An item has one or more ordinals and is complete when it has ended and each of them has its outcome. Items
complete in the order in which they began, whatever is known first. If any ordinal failed, the item fails:
text with a hole that nobody sees would be worse than none.

After a resume, feed the VAD events before the cursor first, from the ``Started`` of each item that was not
completed, and throw away what comes out. Give no client a cursor whose k lies above ``floor``: the outcomes
of items that are half done have to come again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
from services.ingress.stabiliser import Stabiliser, join_texts
from shared.audio import samples_to_ms
from shared.messages import (
    Abandoned,
    AnyVadEvent,
    Dropped,
    Mode,
    Notice,
    Outcome,
    Partial,
    Segment,
    Started,
    VadFinished,
)

Fact = AnyVadEvent | Outcome | Partial

FAILURES = {
    "audio_expired": "The audio of this item is no longer stored.",
    "rejected": "The speaker of this item was not accepted.",
}
"""Code of a failed item -> what the client is told; never a part of its text."""
FAILURE = "This item could not be recognised."


@dataclass(slots=True)
class _Item:
    id: str
    first: int
    start_ms: int
    mode: Mode
    stabiliser: Stabiliser
    end_ms: int = -1
    """-1: not ended yet."""
    open: set[int] = field(default_factory=set)
    """Ordinals that have no outcome yet."""
    texts: list[str] = field(default_factory=list)
    language: str = ""
    emotion: str = ""
    engine_ms: float = 0.0
    failure: str = ""

    @property
    def complete(self) -> bool:
        return self.end_ms >= 0 and not self.open

    def conclude(self) -> SessionEvent:
        if self.failure:
            return ItemFailed(self.id, self.failure, FAILURES.get(self.failure, FAILURE))
        return ItemCompleted(
            item=self.id,
            transcript=join_texts(*self.texts),
            language=self.language,
            emotion=self.emotion,
            start_ms=self.start_ms,
            end_ms=self.end_ms,
            engine_ms=self.engine_ms,
            text=self.stabiliser.confirmed,
        )


class Transcript:
    """``receive`` takes each fact once, in the order of the merge; completed items are forgotten."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}
        """In the order in which they began."""
        self._item_of: dict[int, _Item] = {}
        """Ordinals without an outcome."""
        self._readers: dict[type, Callable[[Any], list[SessionEvent]]] = {
            Started: self._started,
            Segment: self._closed,
            Dropped: self._closed,
            Abandoned: self._abandoned,
            Notice: self._noticed,
            VadFinished: self._finished,
            Outcome: self._outcome,
            Partial: self._partial,
        }

    @property
    def floor(self) -> int | None:
        """First ordinal of the oldest item that is not completed; None: there is none."""
        return next((item.first for item in self._items.values()), None)

    def receive(self, fact: Fact) -> list[SessionEvent]:
        return self._readers[type(fact)](fact)

    def _started(self, fact: Started) -> list[SessionEvent]:
        item = self._begin(fact.item, fact.k, fact.start, fact.mode)
        return [ItemStarted(item.id, item.start_ms, item.mode)]

    def _begin(self, item_id: str, k: int, start: int, mode: Mode) -> _Item:
        return self._items.setdefault(item_id, _Item(item_id, k, samples_to_ms(start), mode, Stabiliser(k)))

    def _closed(self, fact: Segment | Dropped) -> list[SessionEvent]:
        """An ordinal is closed: its text follows, or (dropped, or nobody was asked for any) there is none."""
        item = self._begin(fact.item, fact.k, fact.start, fact.mode)
        told: list[SessionEvent] = []
        if isinstance(fact, Segment) and "asr" in fact.needs:
            item.open.add(fact.k)
            self._item_of[fact.k] = item
        else:
            item.stabiliser.final(fact.k, "")
        if fact.ends_item:
            item.end_ms = samples_to_ms(fact.end)
            told.append(ItemStopped(item.id, item.start_ms, item.end_ms, item.mode, fact.cause))
        return told + self._conclude()

    def _abandoned(self, fact: Abandoned) -> list[SessionEvent]:
        item = self._items.pop(fact.item, None)
        if item is None:
            return []
        for k in item.open:
            del self._item_of[k]
        return [ItemAbandoned(item.id), *self._conclude()]

    def _noticed(self, fact: Notice) -> list[SessionEvent]:
        return [Noticed(fact.code, fact.event_id)]

    def _finished(self, fact: VadFinished) -> list[SessionEvent]:
        return [SessionFinished(fact.reason)]

    def _outcome(self, fact: Outcome) -> list[SessionEvent]:
        item = self._item_of.pop(fact.k, None) if fact.slot == "asr" else None
        if item is None:
            return []
        item.open.discard(fact.k)
        item.engine_ms += fact.engine_ms
        if fact.status == "ok":
            item.texts.append(fact.text)
            item.language = item.language or fact.language
            item.emotion = item.emotion or fact.emotion
        else:
            item.failure = item.failure or _failure_code(fact)
        text = fact.text if fact.status == "ok" else ""
        grown = self._text(item, item.stabiliser.final(fact.k, text), fact.language)
        # The completed item says it all; a last text event right before it would say nothing new.
        return self._conclude() if item.complete else grown

    def _partial(self, fact: Partial) -> list[SessionEvent]:
        item = self._items.get(fact.item)
        if item is None:
            return []
        return self._text(item, item.stabiliser.hypothesis(fact.k, fact.end, fact.text), fact.language)

    def _text(self, item: _Item, change: tuple[str, str] | None, language: str) -> list[SessionEvent]:
        if change is None:
            return []
        text, stash = change
        return [ItemText(item.id, text, stash, language or item.language)]

    def _conclude(self) -> list[SessionEvent]:
        """The items at the head of the line that are complete."""
        told: list[SessionEvent] = []
        while self._items and (head := next(iter(self._items.values()))).complete:
            del self._items[head.id]
            told.append(head.conclude())
        return told


def _failure_code(fact: Outcome) -> str:
    return "rejected" if fact.status == "rejected" else fact.reason or "engine_failed"

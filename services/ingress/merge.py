"""The client's order, computed from facts that have none.

The one rule: what a merge emits is a function of the durable facts and its cursor; when a fact is missing it
stops, it never guesses.

Resuming. A cursor ``ev.closed.k`` does not say what the ordinals k to closed - 1 wait for: the events that
closed them lie before ``ev``. So whoever fills the facts also applies the events *before* the cursor, at
least from the one that closed ordinal k on (a reconcile applies the whole chain), and a store is trimmed
below ``Merge.floor``, not below the cursor. Where those events have expired, ``needs`` says it instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.ingress.facts import START, Cursor, Facts
from shared.errors import BadMessage
from shared.messages import (
    Abandoned,
    AnyVadEvent,
    Dropped,
    Outcome,
    Partial,
    Segment,
    Slot,
    Started,
    VadFinished,
    read_vad_event,
    unpack,
)

__all__ = ["START", "Cursor", "Emitted", "Facts", "Merge", "Stuck"]

Emitted = AnyVadEvent | Outcome | Partial

_BACK, _OUTCOMES, _AHEAD = 4, 6, 6
"""Keys of one read: events before the cursor while they are needed, outcomes, events."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """What a merge waits for although it should be there; equal for as long as it waits for the same."""

    ordinal: int | None = None
    """This ordinal is closed and its outcome is not there."""
    hole: int | None = None
    """This event is missing while later facts are there."""

    def __bool__(self) -> bool:
        return self.ordinal is not None or self.hole is not None


class _Closed(NamedTuple):
    """A closed ordinal whose outcome was not emitted yet; without needs the event was its outcome."""

    ev: int
    item: str
    needs: tuple[Slot, ...]


class Merge:
    """One walk from a cursor on. It trims what it has passed from its facts: one ``Facts`` per merge.

    ``needs`` of the ordinals k to closed - 1 is for a cursor whose past has expired; with it nothing before
    the cursor is waited for.
    """

    def __init__(self, cursor: Cursor = START, needs: Mapping[int, Sequence[Slot]] | None = None) -> None:
        self.cursor = cursor
        """After the last emitted event: what the client resumes from."""
        self.finished = False
        self._start = cursor
        self._closed = {k: _Closed(cursor.ev, "", tuple(slots)) for k, slots in (needs or {}).items()}
        self._behind = cursor.ev if needs is None else 0
        """The events from here to the start were looked at."""
        self._recalled: set[int] = set()
        self._item, self._item_ev = "", 0
        """The item that goes on ("" = none), and the newest event that says so."""
        self._partial = (-1, -1)
        self._given = 0
        """Outcomes of ordinal k that were already emitted."""

    def advance(self, facts: Facts) -> list[Emitted]:
        """Everything that can be emitted now."""
        return list(self.steps(facts))

    def steps(self, facts: Facts) -> Iterator[Emitted]:
        """The same one by one: at each step ``cursor`` is what a client that got this far resumes from.

        Raises:
            BadMessage: a fact cannot be read, or the cursor is not one of this session.
        """
        self._look_back(facts)
        while not self.finished:
            outcomes = self._outcomes(facts)
            if outcomes is not None:
                yield from self._settle(outcomes)
            elif (event := self._due(facts)) is not None:
                self._take(event)
                yield event
            else:
                break
        partial = self._draft(facts)
        if partial is not None:
            yield partial
        facts.reader = self.cursor
        facts.trim(self.cursor.ev if self._complete else 0, self.cursor.k)

    def missing(self, facts: Facts) -> list[str]:
        """The next fields of the session's hash that it waits for; `p` and `w` are not among them."""
        if self.finished:
            return []
        ev, k = self.cursor.ev, self.cursor.k
        back = range(self._behind - 1, max(self._behind - _BACK, 0) - 1, -1)
        keys = [] if self._complete else [f"v:{n}" for n in back]
        outcomes = []
        for n in range(k, k + _OUTCOMES):
            # Of one that is not closed yet the needs are a guess: it saves a second read where it is right.
            slots = self._closed[n].needs if n in self._closed else ("asr",)
            outcomes += [f"o:{n}:{slot}" for slot in slots if (n, slot) not in facts.outcomes]
        ahead = [f"v:{n}" for n in range(ev, ev + _AHEAD) if n not in facts.events]
        return keys + outcomes[:_OUTCOMES] + ahead

    def stuck(self, facts: Facts) -> Stuck:
        """What to be impatient about, after ``advance``; for how long is the caller's to say."""
        if self.finished:
            return Stuck()
        ev, closed, k = self.cursor.ev, self.cursor.closed, self.cursor.k
        later = facts.newest_ev > ev or facts.newest_k >= closed
        hole = ev if later and ev not in facts.events else None
        return Stuck(k if k < closed else None, hole)

    @property
    def floor(self) -> tuple[int, int]:
        """(ev, k) below which no fact is needed to resume from this cursor: trim a store to here."""
        if not self._complete:
            return 0, self.cursor.k
        oldest = self._closed[self.cursor.k].ev if self.cursor.k in self._closed else self.cursor.ev
        return max(min(oldest, self._item_ev, self.cursor.ev - 1), 0), self.cursor.k

    @property
    def _complete(self) -> bool:
        """Everything before the start that still matters is known."""
        if self._start.ev and self._behind == self._start.ev:
            return False
        return len(self._closed) == self.cursor.closed - self.cursor.k

    def _look_back(self, facts: Facts) -> None:
        if self._complete:
            return
        for ev in [ev for ev in facts.events if ev < self.cursor.ev]:
            event = _event(ev, facts.events.pop(ev))
            if ev == self._start.ev - 1 and event.closed != self._start.closed:
                raise BadMessage("the cursor is not one of this session")
            self._recalled.add(ev)
            self._remember(event)
        while self._behind - 1 in self._recalled:
            self._behind -= 1
        if self._complete:
            self._recalled.clear()

    def _remember(self, event: AnyVadEvent) -> None:
        """What an event means for later: whom an ordinal waits for, which item goes on, that all is over."""
        if isinstance(event, Segment | Dropped | Abandoned) and event.k >= self.cursor.k:
            needs = event.needs if isinstance(event, Segment) else ()
            # asr last: when the text comes, everything else about the ordinal was there before.
            self._closed[event.k] = _Closed(
                event.ev, event.item, tuple(sorted(needs, key=lambda s: s == "asr"))
            )
        if isinstance(event, Started | Segment | Dropped | Abandoned) and event.ev >= self._item_ev:
            goes_on = isinstance(event, Started) or not getattr(event, "ends_item", True)
            self._item, self._item_ev = event.item if goes_on else "", event.ev
        if isinstance(event, VadFinished):
            self.finished = True

    def _outcomes(self, facts: Facts) -> list[Outcome] | None:
        """The outcomes of ordinal k in the order in which they are emitted; None = not all there."""
        k = self.cursor.k
        if k == self.cursor.closed:
            return None
        closed, asr = self._closed.get(k), facts.outcomes.get((k, "asr"))
        if (asr and asr[0] == 0) or (closed and not closed.needs):
            return []
        if closed is None:
            return None
        final = _outcome(k, "asr", asr[1]) if asr else None
        if final and final.status != "ok":
            return [final]  # alone, whatever else is there: the same from every cursor
        held = [(slot, facts.outcomes.get((k, slot))) for slot in closed.needs]
        if any(fact is None for _, fact in held):
            return None
        return [_outcome(k, slot, fact[1]) for slot, fact in held if fact]

    def _settle(self, outcomes: list[Outcome]) -> Iterator[Outcome]:
        """The cursor moves before the last one: a client that has only some of them gets all again."""
        while self._given < len(outcomes) - 1:
            self._given += 1
            yield outcomes[self._given - 1]
        self._given = 0
        self._closed.pop(self.cursor.k, None)
        self.cursor = Cursor(self.cursor.ev, self.cursor.closed, self.cursor.k + 1)
        yield from outcomes[-1:]

    def _due(self, facts: Facts) -> AnyVadEvent | None:
        body = facts.events.get(self.cursor.ev)
        if body is None:
            return None
        event = _event(self.cursor.ev, body)
        if isinstance(event, VadFinished) and self.cursor.k != event.ordinals:
            if self.cursor.k == event.closed:  # it would wait for ever
                raise BadMessage(f"finished after {event.closed} ordinals, says {event.ordinals}")
            return None
        return event

    def _take(self, event: AnyVadEvent) -> None:
        self._remember(event)
        self.cursor = Cursor(event.ev + 1, event.closed, self.cursor.k)

    def _draft(self, facts: Facts) -> Partial | None:
        """The newest partial, if its item was started and no earlier ordinal of the item is still to come."""
        if self.finished or facts.partial is None or facts.partial[:2] <= self._partial:
            return None
        k, end, body = facts.partial
        partial: Partial = unpack(Partial, body)
        pending = self._closed.get(k)
        item = pending.item if pending else self._item if k == self.cursor.closed else ""
        if not item or partial.item != item or any(n < k and c.item == item for n, c in self._closed.items()):
            return None
        self._partial = k, end
        return partial


def _event(ev: int, body: bytes) -> AnyVadEvent:
    event = read_vad_event(body)
    if event.ev != ev:
        raise BadMessage(f"event {event.ev} under the number {ev}")
    return event


def _outcome(k: int, slot: str, body: bytes) -> Outcome:
    outcome: Outcome = unpack(Outcome, body)
    if (outcome.k, outcome.slot) != (k, slot):
        raise BadMessage(f"outcome of {outcome.k}:{outcome.slot} under {k}:{slot}")
    return outcome

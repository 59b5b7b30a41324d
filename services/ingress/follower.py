"""Following one session: facts in, what the client sees out, in the one right order.

Facts come from wake-ups, from reads of Redis, and from JetStream; they may come twice, late, or not at all. The
merge makes the order, the transcript makes items, and the cursor says what the client has.
"""

import asyncio
import time
from collections.abc import Iterator

from services.ingress.dialects.base import ItemStopped, ItemText, SessionEvent
from services.ingress.merge import START, Cursor, Facts, Merge
from services.ingress.transcript import Transcript
from shared import subjects
from shared.bus import Bus
from shared.messages import Abandoned, Dropped, Outcome, read_vad_event, unpack
from shared.session_view import Op, event_op, outcome_op

TEXT_EVERY_S = 0.2
OUTCOME_PATIENCE_S = 2.0
HOLE_PATIENCE_S = 1.0


class Follower:
    """One session as one client sees it."""

    def __init__(self, sid: str, epoch: int, cursor: Cursor = START) -> None:
        self.sid = sid
        self.epoch = epoch
        self.facts = Facts(cursor)
        self.merge = Merge(cursor)
        self.changed = asyncio.Event()
        self.superseded = False
        self.trimmed = (0, 0)
        self._transcript = Transcript()
        self._text_at = 0.0
        self._draft: ItemText | None = None
        self._stuck_on: object = None
        self._stuck_since = 0.0

    def wake(self, epoch: int, fields: tuple[tuple[str, bytes], ...]) -> None:
        """Facts as a wake-up or a read brings them."""
        if epoch > self.epoch:
            self.superseded = True
        for field, value in fields:
            self.facts.absorb(field, value)
        self.changed.set()

    def events(self) -> Iterator[SessionEvent]:
        """What can be told now, one by one; texts of an open item at most every 200 ms."""
        for fact in self.merge.steps(self.facts):
            for event in self._transcript.receive(fact):
                if isinstance(event, ItemText):
                    self._draft = event  # the newest says it best
                    continue
                if self._draft is not None and event_ends(event, self._draft):
                    self._draft = None
                yield event
        if self._draft is not None and self.draft_due_s() == 0.0:
            draft, self._draft = self._draft, None
            self._text_at = time.monotonic()
            yield draft

    def draft_due_s(self) -> float | None:
        """Seconds until a held draft may be told; None = there is none."""
        if self._draft is None:
            return None
        return max(0.0, self._text_at + TEXT_EVERY_S - time.monotonic())

    def missing(self) -> list[str]:
        """Fields to read from Redis."""
        return [*self.merge.missing(self.facts), "p"]

    def needs_repair(self) -> bool:
        """Something that must be there has not come for too long."""
        stuck = self.merge.stuck(self.facts)
        now = time.monotonic()
        if not stuck:
            self._stuck_on = None
            return False
        if stuck != self._stuck_on:
            self._stuck_on, self._stuck_since = stuck, now
        patience = HOLE_PATIENCE_S if stuck.hole is not None else OUTCOME_PATIENCE_S
        if now - self._stuck_since < patience:
            return False
        self._stuck_since = now
        return True


async def stored_facts(bus: Bus, sid: str) -> list[Op]:
    """All that JetStream holds of a session, as operations for ``commit``, in stream order.

    Where reading ends is fixed by the leader first, so that a replica that lags is noticed.
    """
    ops: list[Op] = []
    for stream, subject in (
        (subjects.SEGMENTS, subjects.vad_session(sid)),
        (subjects.RESULTS, subjects.results(sid)),
    ):
        tail = await bus.last(stream, subject)
        if tail is None:
            continue
        for stored in await bus.read(stream, subject, 1, tail.seq):
            if stream == subjects.SEGMENTS:
                ops.append(event_op(read_vad_event(stored.data), stored.data))
            else:
                ops.append(outcome_op(unpack(Outcome, stored.data), stored.seq, stored.data))
    return ops


def apply_ops(facts: Facts, ops: list[Op]) -> None:
    """The same operations on the facts in memory: with Redis away, a session goes on from JetStream alone."""
    for op in ops:
        if op[0] == "v":
            event = read_vad_event(op[3])  # type: ignore[arg-type]
            closes = event.k if isinstance(event, Dropped | Abandoned) else None
            facts.apply_event(event.ev, op[3], closes)  # type: ignore[arg-type]
        else:
            facts.apply_outcome(op[1], op[2], op[3], op[4])  # type: ignore[arg-type]


def event_ends(event: SessionEvent, draft: ItemText) -> bool:
    """Does ``event`` make the draft worthless? That the item's audio is complete does not."""
    return getattr(event, "item", "") == draft.item and not isinstance(event, ItemStopped)

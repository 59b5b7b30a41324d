"""How sessions end that their client did not end: what a clock decides, or a failure, becomes a record first."""

import asyncio
import time
from typing import Literal

from services.vad_worker.segmenter import Segmenter
from services.vad_worker.session import Position, Session
from shared import subjects
from shared.bus import Bus, Chain
from shared.errors import BadMessage, BusUnavailable, Fenced
from shared.messages import (
    Abandoned,
    AnyRecord,
    AnyVadEvent,
    At,
    Audio,
    Finished,
    VadFinished,
    pack,
    read_record,
)

Reason = Literal["idle", "error"]


async def finish(bus: Bus, session: Session, reason: Reason) -> None:
    """Append ``finished`` behind the log's tail; idle only if nothing came since the last record read."""
    subject = subjects.audio(session.sid)
    while not session.gone:
        try:
            tail = await bus.last(session.stream, subject)
            if tail is None or (reason == "idle" and tail.seq != session.upto):
                return
            last = _readable(tail.data) or session.position
            if isinstance(last, Finished):
                return
            record = ending(last, tail.seq, reason, time.time_ns() // 1_000_000)
            await Chain(bus, session.stream, subject, tail.seq).append(pack(record))
        except BusUnavailable:
            await asyncio.sleep(0.2)
        except Fenced:
            if reason == "idle":
                return  # a record came in between: not idle after all
        else:
            return


def _readable(data: bytes) -> AnyRecord | None:
    try:
        return read_record(data)
    except BadMessage:
        return None


def ending(last: AnyRecord | Position, seq: int, reason: Reason, now_ms: int) -> Finished:
    """The ``finished`` record that follows ``last``."""
    pos = last.pos + (last.n if isinstance(last, Audio) else 0)
    return Finished(
        ep=last.ep, ix=last.ix + 1, prev=seq, pos=pos, t=now_ms, reason=reason, discard=reason == "error"
    )


def closing_events(seg: Segmenter, seq: int) -> list[AnyVadEvent]:
    """The end of a chain, made from its counters alone: the open ordinal is abandoned."""
    at = At(seq=seq, sample=seg.sample)
    events: list[AnyVadEvent] = []
    ev, closed = seg.ev, seg.closed
    if seg.open_item is not None:
        closed += 1
        events.append(
            Abandoned(ev=ev, closed=closed, at=at, k=closed - 1, item=seg.open_item, reason="error")
        )
        ev += 1
    events.append(VadFinished(ev=ev, closed=closed, at=at, ordinals=closed, reason="error"))
    return events

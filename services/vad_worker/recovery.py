"""Bringing a session into memory: its checkpoint, what was published since, and the records in between.

One path serves a new session, a takeover, and an owner that was fenced: whatever the tail reader delivers
later, nothing depends on where it began.
"""

import asyncio
import itertools
import logging

from services.vad_worker.session import Session
from shared import subjects
from shared.bus import Bucket, Bus, Stored
from shared.errors import BadMessage, BusUnavailable, PermanentError
from shared.messages import Checkpoint, Opened, VadFinished, read_record, read_vad_event, unpack

logger = logging.getLogger(__name__)


class Recovery:
    """Loads sessions."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._checkpoints = Bucket(bus, subjects.CHECKPOINTS)

    async def load_patiently(self, session: Session) -> bool:
        """``load`` until JetStream answers. False also for a session that cannot be read at all."""
        for attempt in itertools.count():
            try:
                return session.gone or await self.load(session)
            except BusUnavailable:
                await asyncio.sleep(_pause(attempt))
            except PermanentError as error:
                logger.error("cannot be loaded", extra={"session": session.sid, "error": str(error)})
                return False
        raise AssertionError("unreachable")

    async def mend_patiently(self, session: Session) -> bool:
        """``mend`` until JetStream answers."""
        for attempt in itertools.count():
            try:
                return session.gone or await self.mend(session)
            except BusUnavailable:
                await asyncio.sleep(_pause(attempt))
        raise AssertionError("unreachable")

    async def load(self, session: Session) -> bool:
        """Fill ``session`` up to the first record of its inbox. False: the session is over already."""
        session.forced.clear()  # what an attempt that failed half way has left
        session.chain.tail = 0
        tail = await self._bus.last(subjects.SEGMENTS, subjects.vad_session(session.sid))
        if tail is not None and isinstance(read_vad_event(tail.data), VadFinished):
            await self._forget(session)
            return False
        if (saved := await self._checkpoint(session, tail)) is not None:
            try:
                session.restore(saved)
            except BadMessage as error:
                # Computed anew from the log, under the events that were published.
                logger.warning("checkpoint not usable", extra={"session": session.sid, "error": str(error)})
                saved = None
        await self._load_events(session, tail)
        if saved is not None or not _is_new(session):
            await self._load_records(session)
        return True

    async def _checkpoint(self, session: Session, tail: Stored | None) -> Checkpoint | None:
        """The session's checkpoint, if there is one that agrees with the log and with the chain."""
        entry = await self._checkpoints.get(_key(session))
        if entry is None:
            return None
        session.saved_revision = entry.revision
        if entry.value is None:
            return None
        try:
            saved: Checkpoint = unpack(Checkpoint, entry.value)
        except BadMessage as error:
            logger.warning("checkpoint not readable", extra={"session": session.sid, "error": str(error)})
            return None
        # A checkpoint that is ahead (a purge, a restored disk) must not hide records or events: compute anew.
        log_tail = await self._bus.last(session.stream, subjects.audio(session.sid))
        if await self._reaches(session.stream, log_tail, saved.upto) and await self._reaches(
            subjects.SEGMENTS, tail, saved.chain_seq
        ):
            return saved
        logger.warning("checkpoint ahead of the log", extra={"session": session.sid, "upto": saved.upto})
        return None

    async def _reaches(self, stream: str, tail: Stored | None, seq: int) -> bool:
        """Does the subject reach up to ``seq``, or has everything up to there expired?"""
        if tail is not None and tail.seq >= seq:
            return True
        return tail is None and seq < await self._bus.first_seq(stream)

    async def _load_events(self, session: Session, tail: Stored | None) -> None:
        """Collect what was published after the checkpoint, or ever."""
        if tail is None:
            return
        subject = subjects.vad_session(session.sid)
        found = await self._bus.read(subjects.SEGMENTS, subject, session.chain.tail + 1, tail.seq)
        session.forced.extend(read_vad_event(stored.data) for stored in found)
        session.chain.tail = tail.seq

    async def _load_records(self, session: Session) -> None:
        """Put the records between the checkpoint and the inbox in front of the inbox."""
        session.forget_read()
        subject = subjects.audio(session.sid)
        if session.inbox:
            until = session.inbox[0].seq - 1
        else:
            last = await self._bus.last(session.stream, subject)
            until = last.seq if last is not None else 0
        if until > session.upto:
            found = await self._bus.read(session.stream, subject, session.upto + 1, until)
            session.prepend(found)

    async def mend(self, session: Session) -> bool:
        """Fetch what lies between the last record read and the first of the inbox. False: it is gone."""
        first = session.inbox[0].seq
        found = await self._bus.read(session.stream, subjects.audio(session.sid), session.upto + 1, first - 1)
        session.prepend(found)
        return bool(found)

    async def _forget(self, session: Session) -> None:
        entry = await self._checkpoints.get(_key(session))
        if entry is not None and entry.value is not None:
            await self._checkpoints.delete(_key(session))


def _key(session: Session) -> str:
    return subjects.checkpoint_key(session.place.partition, session.sid)


def _is_new(session: Session) -> bool:
    if not session.inbox:
        return False
    try:
        return isinstance(read_record(session.inbox[0].data), Opened)
    except BadMessage:
        return False


def _pause(attempt: int) -> float:
    """Seconds before the next try."""
    return min(0.05 * 1.6**attempt, 1.0) if attempt < 10 else 1.0

"""The VAD worker's shell: reads the logs of its partitions, judges windows in batches, publishes, remembers.

Order of work for each decision: publish on the chain (acknowledged), tell Redis, later the checkpoint. Each
step is safe to repeat, and a zombie's publish is refused by the chain.
"""

import asyncio
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any

from services.vad_worker.caution import Caution
from services.vad_worker.checkpoints import Checkpoints
from services.vad_worker.detectors.base import Detector, Window
from services.vad_worker.endings import closing_events, finish
from services.vad_worker.readers import Readers
from services.vad_worker.recovery import Recovery
from services.vad_worker.session import Hole, Session
from shared import subjects
from shared.bus import Bus, Chain, Stored
from shared.errors import BusUnavailable, Fenced, PermanentError
from shared.facts import FactWriter
from shared.messages import PartialRequest, VadFinished, pack
from shared.sessions import LANES, Lane, place_of

logger = logging.getLogger(__name__)

_CHECKPOINT_EVERY_S = 3.0
_BATCH = 32
_BATCH_LANE_SHARE = 8
_TICK_S = 0.005
_BUSY = 0.4
_OUTBOX_LIMIT = 32
_INBOX_LIMIT_BYTES = 64 << 20
_REMEMBERED = 4096


class Handler:
    """Everything a VAD worker does with the partitions it holds."""

    def __init__(self, bus: Bus, facts: FactWriter, detector: Detector) -> None:
        self._bus = bus
        self._facts = facts
        self._detector = detector
        self._recovery = Recovery(bus)
        self.checkpoints = Checkpoints(bus)
        self.sessions: dict[str, Session] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._caution = Caution(bus)
        self._readers = Readers(
            bus, self.checkpoints, self._spawn, self._on_record, self._wait_for_room, self._caution.taken
        )
        self._ready: dict[Lane, OrderedDict[str, Session]] = {lane: OrderedDict() for lane in LANES}
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._loads = asyncio.Semaphore(16)

    async def run(self) -> None:
        """Work until cancelled. A crash of any part ends the process; nothing runs on half-alive."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._facts.run())
            tasks.create_task(self._judge())
            tasks.create_task(self._keep_checkpoints())
            tasks.create_task(self._end_idle_sessions())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._tasks is not None
        return self._tasks.create_task(coroutine)

    # --- ownership -------------------------------------------------------------------------------------

    async def gained(self, partition: int) -> None:
        """This worker owns ``partition`` now."""
        self._readers.join(partition, self._meet)

    async def lost(self, partition: int) -> None:
        """Somebody else owns ``partition`` now: forget everything about it, publish nothing."""
        self._leave(partition)
        self._caution.forget(partition)
        for session in self._of(partition):
            self._drop(session)

    async def release(self, partition: int) -> None:
        """Hand ``partition`` over in good order: publish what is decided, write the checkpoints down."""
        self._leave(partition)
        sessions = list(self._of(partition))
        try:
            async with asyncio.timeout(2):
                while not all(session.quiet or session.loading for session in sessions):
                    await asyncio.sleep(0.005)  # the judge and the publishers are at it
                await self.checkpoints.save_all(session for session in sessions if session.quiet)
        except (TimeoutError, BusUnavailable):
            logger.info("partition released without checkpoint", extra={"partition": partition})
        for session in sessions:
            self._drop(session)
        await self._acquit([partition])

    def _leave(self, partition: int) -> None:
        self._readers.leave(partition)
        self.checkpoints.forget(partition)

    def _of(self, partition: int) -> list[Session]:
        return [session for session in self.sessions.values() if session.place.partition == partition]

    def _drop(self, session: Session) -> None:
        session.gone = True
        if self.sessions.get(session.sid) is session:
            del self.sessions[session.sid]
        self._ready[session.place.lane].pop(session.sid, None)
        self._progress.set()

    # --- reading ---------------------------------------------------------------------------------------

    def _on_record(self, stored: Stored) -> None:
        sid = subjects.session_of(stored.subject)
        try:
            partition = place_of(sid).partition
        except ValueError:
            logger.warning("record of no session", extra={"subject": stored.subject})
            return
        if sid in self._over or partition not in self._readers:
            return
        session = self.sessions.get(sid) or self._meet(sid)
        if stored.seq <= session.last_seen:
            return
        session.enqueue(stored)
        session.touched = time.monotonic()
        if not session.loading:
            self._make_ready(session)

    def _meet(self, sid: str) -> Session:
        """Make room for a session and load what is known about it."""
        place = place_of(sid)
        chain = Chain(self._bus, subjects.SEGMENTS, "")

        def on_partial(request: PartialRequest) -> None:
            if session.seg is not None and not session.gone:
                subject = subjects.partials(sid, session.seg.pool)
                self._spawn(self._ask(subject, pack(request)))

        session = Session(sid, subjects.audio_stream(place.lane), chain, self._detector, on_partial)
        session.touched = time.monotonic()
        self.sessions[sid] = session
        self._spawn(self._load(session))
        return session

    async def _ask(self, subject: str, request: bytes) -> None:
        try:
            await self._bus.fire(subject, request)
        except BusUnavailable:
            pass  # a partial is worth one try

    async def _load(self, session: Session) -> None:
        async with self._loads:
            going_on = await self._recovery.load_patiently(session)
        if session.gone:
            return
        if going_on:
            session.loading = False
            if self._caution.accuses(session.place.partition, session.sid):
                self._quarantine(session, PermanentError("owners died while they read it"))
            else:
                self._make_ready(session)
        else:
            self._end(session)

    def _make_ready(self, session: Session) -> None:
        if len(session.outbox) < _OUTBOX_LIMIT and not session.loading and not session.gone:
            self._ready[session.place.lane][session.sid] = session
            self._wake.set()

    async def _wait_for_room(self) -> None:
        """Hold the broker's flow control back while more is queued here than may be."""
        while sum(session.queued_bytes for session in self.sessions.values()) > _INBOX_LIMIT_BYTES:
            self._progress.clear()
            await self._progress.wait()

    # --- judging ---------------------------------------------------------------------------------------

    async def _judge(self) -> None:
        """Silero over all sessions that have a window, at most 32 at once, live before batch."""
        used, since = time.thread_time(), time.monotonic()
        busy = 0.0
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._gather():
                sessions, windows = zip(*batch, strict=True)
                probabilities = self._detector.detect([session.speech for session in sessions], windows)
                for session, probability in zip(sessions, probabilities, strict=True):
                    self._judged(session, probability)
                self._progress.set()
                # Publishes and reads go on between two calls; an unbounded batch would hold them up.
                await asyncio.sleep(0)
            if time.monotonic() - since > 0.5:
                now_used, now = time.thread_time(), time.monotonic()
                busy, used, since = (now_used - used) / (now - since), now_used, now
            if busy > _BUSY:
                # Under load a short pause lets windows of more sessions meet in one batch.
                await asyncio.sleep(_TICK_S)

    def _gather(self) -> list[tuple[Session, Window]]:
        batch: list[tuple[Session, Window]] = []
        self._gather_lane("live", _BATCH, batch)
        self._gather_lane("batch", min(_BATCH_LANE_SHARE, _BATCH - len(batch)), batch)
        return batch

    def _gather_lane(self, lane: Lane, limit: int, batch: list[tuple[Session, Window]]) -> None:
        ready = self._ready[lane]
        for _ in range(len(ready)):
            if limit <= 0:
                return
            sid, session = ready.popitem(last=False)
            if self._caution.careful(session.place.partition):
                self._spawn(self._step(session))
                continue
            window = self._next_window(session)
            if window is not None:
                batch.append((session, window))
                ready[sid] = session
                limit -= 1

    async def _step(self, session: Session) -> None:
        """Read one session by itself, in a partition whose owners have died again and again."""
        async with self._caution.reading(session.place.partition, session.sid):
            while (window := self._next_window(session)) is not None:
                [probability] = self._detector.detect([session.speech], [window])
                self._judged(session, probability)

    def _next_window(self, session: Session) -> Window | None:
        if len(session.outbox) >= _OUTBOX_LIMIT or session.gone or session.loading:
            return None  # its publisher or its loader makes it ready again
        try:
            window = session.next_window()
        except Hole:
            session.loading = True
            self._spawn(self._mend(session))
            return None
        except Exception as error:  # noqa: BLE001  # a record that cannot be processed ends its session only
            self._quarantine(session, error)
            return None
        self._after(session)
        return window

    def _judged(self, session: Session, probability: float) -> None:
        if session.gone:
            return
        try:
            session.judged(probability)
        except Exception as error:  # noqa: BLE001  # as above
            self._quarantine(session, error)
            return
        self._after(session)

    def _after(self, session: Session) -> None:
        """Something was read: publish what was decided, remember that a checkpoint is due."""
        if session.gone:
            return
        if session.dirty_since is None:
            session.dirty_since = time.monotonic()
        if session.outbox and not session.publishing:
            session.publishing = True
            self._spawn(self._publish(session))

    async def _mend(self, session: Session) -> None:
        """A record is missing between two: fetch it, or accept that it is gone."""
        if not await self._recovery.mend_patiently(session):
            logger.warning("gap in session log", extra={"session": session.sid, "after": session.upto})
            session.accept_gap()
        session.loading = False
        self._make_ready(session)

    # --- publishing ------------------------------------------------------------------------------------

    async def _publish(self, session: Session) -> None:
        """Send the outbox, one by one, each acknowledged before the next."""
        assert session.seg is not None
        session.chain.subject = subjects.vad_events(session.sid, session.seg.pool)
        while session.outbox and not session.gone:
            event = session.outbox[0]
            body = pack(event)
            try:
                await session.chain.append(body)
            except Fenced:
                # Another owner has published: what the chain holds is the truth. Load it and go on from there.
                logger.warning("fenced", extra={"session": session.sid, "ev": event.ev})
                self._reload(session)
                return
            self._facts.event(session.sid, event, body)
            session.outbox.popleft()
            if isinstance(event, VadFinished):
                await self._conclude(session)
        session.publishing = False
        self._make_ready(session)

    def _reload(self, session: Session) -> None:
        if session.gone or session.place.partition not in self._readers:
            return
        self._drop(session)
        self._meet(session.sid)

    async def _conclude(self, session: Session) -> None:
        """Its last event is out: the checkpoint has done its duty."""
        if not session.gone:
            self._end(session)
            await self.checkpoints.delete(session)

    def _end(self, session: Session) -> None:
        self._over[session.sid] = None
        while len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)
        self._drop(session)

    def _quarantine(self, session: Session, error: Exception) -> None:
        """A record that cannot be processed ends its own session, and no other."""
        logger.error("session quarantined", extra={"session": session.sid, "error": repr(error)})
        readable = session.abandon_reading()
        self._spawn(self._end_by_force(session, readable))

    async def _end_by_force(self, session: Session, readable: bool) -> None:
        """Close the log, then the chain, without asking the segmenter, which may be what is broken."""
        await finish(self._bus, session, "error")
        while not session.gone and session.publishing:
            await asyncio.sleep(0.01)
        if session.gone:
            return
        if not readable or session.seg is None:
            self._end(session)  # nobody can say which pool it belongs to; its log is closed at least
            return
        session.outbox.extend(closing_events(session.seg, session.last_seen))
        session.publishing = True
        await self._publish(session)

    # --- clocks become records ---------------------------------------------------------------------------

    async def _end_idle_sessions(self) -> None:
        """Whatever a clock decides becomes a record first: append ``finished`` if nothing else came."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for session in list(self.sessions.values()):
                seg = session.seg
                if seg is None or session.inbox or not session.quiet or session.finished:
                    continue
                if now - session.touched > seg.settings.idle_timeout_s:
                    session.touched = now
                    self._spawn(finish(self._bus, session, "idle"))

    async def _keep_checkpoints(self) -> None:
        for round_ in itertools.count():
            await asyncio.sleep(0.5)
            if round_ % 10 == 0:
                await self._readers.advance()
            due = [session for session in self.sessions.values() if _is_due(session)]
            await self._acquit([p for p in self._caution.unproven() if self._has_read_all(p)])
            try:
                stale = await self.checkpoints.save_all(due)
                await self.checkpoints.save_low_water(self._readers.positions(), self.sessions.values())
            except BusUnavailable as error:
                logger.info("checkpoints not written", extra={"error": str(error)})
                continue
            for session in stale:
                self._reload(session)

    def _has_read_all(self, partition: int) -> bool:
        busy = (session.inbox or session.loading for session in self._of(partition))
        return self._readers.caught_up(partition) and not any(busy)

    async def _acquit(self, partitions: list[int]) -> None:
        """Reading these has not killed us: who takes them over need not be careful."""
        try:
            for partition in partitions:
                await self._caution.cleared(partition)
        except BusUnavailable:
            pass  # tried again in half a second


def _is_due(session: Session) -> bool:
    since = session.dirty_since
    return since is not None and session.quiet and time.monotonic() - since > _CHECKPOINT_EVERY_S

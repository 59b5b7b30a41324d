"""All sessions of this ingress and their one wake-up channel; whatever a wake-up misses, the sweep finds.

Repair is always the same: read the session's facts from JetStream, apply them here and in Redis, register
again. Any number of repairs may run at once, anywhere; the facts are a join.
"""

import asyncio
import logging
import random

from services.ingress.follower import Follower, apply_ops, stored_facts
from shared.bus import Bus
from shared.errors import BadMessage, BusUnavailable, TransientError
from shared.session_view import ORPHANS, Listening, Op, Orphan, SessionView, Wake, register_op

logger = logging.getLogger(__name__)

SWEEP_S = 1.5
_REDIS_AWAY_POLL_S = 0.4
_REPAIRS_AT_ONCE = 8


class Hub:
    """Routes facts to followers and keeps them whole."""

    def __init__(self, bus: Bus, view: SessionView, name: str) -> None:
        self._bus = bus
        self._view = view
        self.channel = f"w:{name}"
        self._followers: dict[str, Follower] = {}
        self._repairing: set[str] = set()
        self._repairs = asyncio.Semaphore(_REPAIRS_AT_ONCE)
        self._tasks: asyncio.TaskGroup | None = None
        self._run_id: str | None = None
        self.redis_away = False
        self.repaired = 0

    async def run(self) -> None:
        """Listen, sweep and repair until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._listen())
            tasks.create_task(self._sweep())
            tasks.create_task(self._watch_redis())

    async def follow(self, follower: Follower) -> None:
        """From now on ``follower`` hears what happens in its session."""
        self._followers[follower.sid] = follower
        if follower.epoch:
            self._repair(follower)  # the session has a past, and Redis may not hold all of it
        try:
            await self._view.register(follower.sid, follower.epoch, self.channel)
        except TransientError:
            pass  # the sweep registers it once Redis is back; until then JetStream is read

    def leave(self, follower: Follower) -> None:
        if self._followers.get(follower.sid) is follower:
            del self._followers[follower.sid]

    # --- hearing -----------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for heard in self._view.listen([self.channel, ORPHANS]):
            match heard:
                case Wake():
                    follower = self._followers.get(heard.session_id)
                    if follower is not None:
                        self._tell(follower, heard.epoch, heard.facts)
                case Orphan():
                    if heard.session_id in self._followers:
                        self._repair(self._followers[heard.session_id])
                case Listening():
                    self._repair_all()

    def _tell(self, follower: Follower, epoch: int, fields: tuple[tuple[str, bytes], ...]) -> None:
        try:
            follower.wake(epoch, fields)
        except BadMessage as error:
            # JetStream holds what it should have been.
            logger.error("bad fact", extra={"session": follower.sid, "error": str(error)})
            self._repair(follower)

    # --- sweeping ----------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Read what wake-ups may have missed; notice what has been missing for too long."""
        while True:
            await asyncio.sleep(_REDIS_AWAY_POLL_S if self.redis_away else SWEEP_S)
            followers = list(self._followers.values())
            if self.redis_away:
                for follower in followers:
                    self._repair(follower)
                continue
            results = await asyncio.gather(*map(self._look, followers), return_exceptions=True)
            failed = [error for error in results if isinstance(error, BaseException)]
            for error in failed:
                if not isinstance(error, TransientError):
                    raise error
            self.redis_away = bool(failed)

    async def _look(self, follower: Follower) -> None:
        fields = await self._view.read(follower.sid, ["w", *follower.missing()])
        registered = fields.pop("w", None)
        if fields:
            self._tell(follower, follower.epoch, tuple(fields.items()))
        if registered is None or follower.needs_repair():
            self._repair(follower)
        elif (epoch := int(registered.partition(b"|")[0])) > follower.epoch:
            follower.wake(epoch, ())
        floor = follower.merge.floor
        if floor != follower.trimmed:
            await self._view.trim(follower.sid, *floor)
            follower.trimmed = floor

    async def _watch_redis(self) -> None:
        """A restart or a failover may have taken facts back: every session looks for itself."""
        while True:
            try:
                run_id = await self._view.run_id()
                if self._run_id not in (None, run_id):
                    logger.warning("another Redis answers; reconciling every session")
                    self._repair_all()
                self._run_id = run_id
                self.redis_away = False
            except TransientError as error:
                if not self.redis_away:
                    logger.warning("Redis is away; reading JetStream", extra={"error": str(error)})
                self.redis_away = True
            await asyncio.sleep(1.0)

    # --- repairing ---------------------------------------------------------------------------------------

    def _repair_all(self) -> None:
        for follower in self._followers.values():
            self._repair(follower, jitter_s=0.2)

    def _repair(self, follower: Follower, jitter_s: float = 0.0) -> None:
        if follower.sid not in self._repairing and self._tasks is not None:
            self._repairing.add(follower.sid)
            self._tasks.create_task(self._reconcile(follower, jitter_s))

    async def _reconcile(self, follower: Follower, jitter_s: float) -> None:
        try:
            await asyncio.sleep(random.uniform(0, jitter_s))
            async with self._repairs:
                ops = await stored_facts(self._bus, follower.sid)
                apply_ops(follower.facts, ops)
                follower.changed.set()
                self.repaired += 1
                if not self.redis_away:
                    await self._write_back(follower, ops)
        except BusUnavailable as error:
            logger.info("not reconciled yet", extra={"session": follower.sid, "error": str(error)})
        finally:
            self._repairing.discard(follower.sid)

    async def _write_back(self, follower: Follower, ops: list[Op]) -> None:
        try:
            await self._view.commit(follower.sid, [register_op(follower.epoch, self.channel), *ops])
        except TransientError:
            pass  # what matters has been applied here

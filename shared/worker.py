"""How every queue worker takes its work: what is most urgent, and never more than it can start.

Three lanes, each a consumer of its own, because JetStream ranks pullers and not messages: finals of live
sessions, interim requests of live sessions, batch. A final never waits for an interim request that happens to
compute: it may start beside it. Everything else waits in JetStream, not here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shared.bus import Delivery, Puller

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 0.9

Handle = Callable[[Delivery], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """The consumers of one worker, most urgent first."""

    live: Puller
    partials: Puller | None
    batch: Puller | None


class Deadline(Exception):
    """A job has computed for longer than any job may: the process is not to be trusted any more."""


class Worker:
    """Runs ``handle`` for finals and batch, ``handle_partial`` for interim requests."""

    def __init__(
        self, lanes: Lanes, slots: int, handle: Handle, handle_partial: Handle, *, time_limit_s: float
    ) -> None:
        self._lanes = lanes
        self._slots = slots
        self._handle = handle
        self._handle_partial = handle_partial
        self._time_limit_s = time_limit_s
        self._changed = asyncio.Event()
        self._urgent: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._held: set[Delivery] = set()

    def changed(self) -> None:
        """Something arrived or ended; pullers call this."""
        self._changed.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Take work until ``stop`` is set, then finish what is running and hand the rest back."""
        async with asyncio.TaskGroup() as jobs:
            jobs.create_task(self._heed(stop))
            beating = jobs.create_task(self._keep_alive())
            while not stop.is_set():
                self._changed.clear()
                await self._take(jobs)
                await self._changed.wait()
            await self._hand_back()
            if self._running:
                await asyncio.wait(self._running)
            beating.cancel()

    async def _heed(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._changed.set()

    async def _take(self, jobs: asyncio.TaskGroup) -> None:
        lanes = self._lanes
        while lanes.live.ready and len(self._urgent) < self._slots:
            self._start(jobs, lanes.live.ready.popleft(), self._handle, urgent=True)
        await lanes.live.want(self._slots - len(self._urgent))
        if lanes.partials is not None:
            while lanes.partials.ready and self._free():
                self._start(jobs, lanes.partials.ready.popleft(), self._handle_partial, settle=False)
            while len(lanes.partials.ready) > self._slots:
                await lanes.partials.ready.popleft().ack()  # too old to be worth anything
            await lanes.partials.want(self._free())
        if lanes.batch is not None:
            if lanes.batch.ready and self._free():
                self._start(jobs, lanes.batch.ready.popleft(), self._handle)
            if self._free() and not lanes.live.ready:
                await lanes.batch.want(1)

    def _free(self) -> int:
        return max(0, self._slots - len(self._running))

    def _start(
        self,
        jobs: asyncio.TaskGroup,
        delivery: Delivery,
        handle: Handle,
        *,
        urgent: bool = False,
        settle: bool = True,
    ) -> None:
        task = jobs.create_task(self._limited(delivery, handle))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if urgent:
            self._urgent.add(task)
            task.add_done_callback(self._urgent.discard)
        if settle:
            self._held.add(delivery)
            task.add_done_callback(lambda _: self._held.discard(delivery))
        task.add_done_callback(lambda _: self._changed.set())

    async def _limited(self, delivery: Delivery, handle: Handle) -> None:
        try:
            async with asyncio.timeout(self._time_limit_s):
                await handle(delivery)
        except TimeoutError as error:
            raise Deadline(f"a job ran for more than {self._time_limit_s} s") from error

    async def _keep_alive(self) -> None:
        """Tell JetStream that the work goes on, so that nobody else is given it meanwhile."""
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            batch = self._lanes.batch.ready if self._lanes.batch is not None else ()
            for delivery in [*self._held, *self._lanes.live.ready, *batch]:
                await delivery.working()
            self._changed.set()  # outstanding requests run out; ask again

    async def _hand_back(self) -> None:
        for puller in (self._lanes.live, self._lanes.batch):
            while puller is not None and puller.ready:
                await puller.ready.popleft().nak()

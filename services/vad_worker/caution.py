"""Records that kill the process: who finds a partition whose owners died again and again treads carefully.

Each takeover without progress in between is counted. From the second on, the owner reads one session at a
time and writes its name down first; if it dies as well, the next owner ends that session instead of reading
it. A record that merely raises needs none of this.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared import subjects
from shared.bus import Bucket, Bus
from shared.errors import BadMessage, BusUnavailable
from shared.messages import Suspicion, pack, unpack

logger = logging.getLogger(__name__)

CAREFUL_FROM = 2


@dataclass
class Standing:
    """What is known about one partition of ours."""

    stalls: int
    suspect: str
    """The session that was being read when the last careful owner died."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    named: str = ""


class Caution:
    """Counts takeovers without progress, and names suspects."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, subjects.CHECKPOINTS)
        self._standing: dict[int, Standing] = {}

    async def taken(self, partitions: Iterable[int]) -> None:
        """This worker begins to read; waits until that is written down."""
        async with asyncio.TaskGroup() as group:
            for partition in partitions:
                group.create_task(self._take(partition))

    async def _take(self, partition: int) -> None:
        while True:
            try:
                entry = await self._bucket.get(subjects.suspicion_key(partition))
                before = _read(entry.value if entry is not None else None)
                now = Suspicion(stalls=before.stalls + 1, suspect=before.suspect)
                await self._bucket.put(subjects.suspicion_key(partition), pack(now))
            except BusUnavailable:
                await asyncio.sleep(0.2)
            else:
                self._standing[partition] = Standing(before.stalls, before.suspect)
                if before.stalls >= CAREFUL_FROM:
                    logger.warning("owners died without progress", extra={"partition": partition})
                return

    def careful(self, partition: int) -> bool:
        standing = self._standing.get(partition)
        return standing is not None and standing.stalls >= CAREFUL_FROM

    def accuses(self, partition: int, sid: str) -> bool:
        """Did a careful owner die while it read this very session?"""
        return self.careful(partition) and self._standing[partition].suspect == sid

    @asynccontextmanager
    async def reading(self, partition: int, sid: str) -> AsyncIterator[None]:
        """One session at a time, named before it is read."""
        standing = self._standing[partition]
        await standing.turn.acquire()
        while standing.named != sid:
            suspicion = Suspicion(stalls=standing.stalls + 1, suspect=sid)
            try:
                await self._bucket.put(subjects.suspicion_key(partition), pack(suspicion))
                standing.named = sid
            except BusUnavailable:
                await asyncio.sleep(0.2)
        yield
        # Not in a `finally`: while this process is going down nobody else may be named any more.
        standing.turn.release()

    def unproven(self) -> list[int]:
        """Partitions that have not shown progress since they were taken."""
        return list(self._standing)

    async def cleared(self, partition: int) -> None:
        """All that was there has been read, and the process lives: raises BusUnavailable if it cannot be said."""
        await self._bucket.delete(subjects.suspicion_key(partition))
        self._standing.pop(partition, None)

    def forget(self, partition: int) -> None:
        self._standing.pop(partition, None)


def _read(value: bytes | None) -> Suspicion:
    if value is None:
        return Suspicion()
    try:
        suspicion: Suspicion = unpack(Suspicion, value)
    except BadMessage:
        return Suspicion()
    return suspicion

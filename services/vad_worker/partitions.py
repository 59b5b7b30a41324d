"""Which partitions are mine: heartbeats, leases, hand-over.

A lease is a compare-and-set entry per partition that its owner renews. Correctness never rests on it (that is
what the chain and the checkpoints' compare-and-set are for); it only keeps two workers from doing the
same work. Hence: an owner stops on a *lost* compare-and-set, never on silence.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.vad_worker.placement import assign
from shared import subjects
from shared.bus import Bucket, Bus, WrongLast
from shared.errors import TransientError
from shared.members import BEAT_S, Roll, send_beat
from shared.messages import Lease, Member, pack, unpack

logger = logging.getLogger(__name__)

ROLE = "vad_worker"
LEASE_S = 2.0
_RENEW_S = 0.7


@dataclass(slots=True)
class Held:
    revision: int
    renewed: float


@dataclass(frozen=True, slots=True)
class Seen:
    owner: str
    revision: int
    since: float


Change = Callable[[int], Awaitable[None]]


class Partitions:
    """Keeps this worker's leases; tells the handler what it gained and what it lost."""

    def __init__(
        self, bus: Bus, name: str, count: int, gained: Change, release: Change, lost: Change
    ) -> None:
        self._leases = Bucket(bus, subjects.LEASES)
        self._members = Bucket(bus, subjects.MEMBERS)
        self._roll = Roll(bus, ROLE)
        self._name = name
        self._count = count
        self._gained = gained
        self._release = release
        self._lost = lost
        self._beat = 0
        self._seen: dict[int, Seen] = {}
        self.held: dict[int, Held] = {}

    async def run(self) -> None:
        """Keep ownership up to date until cancelled."""
        while True:
            await self._announce(draining=False)
            try:
                await self._look()
                await self._renew()
                await self._settle()
            except TransientError as error:
                logger.info("leases not reachable", extra={"error": str(error)})
            await asyncio.sleep(BEAT_S)

    async def leave(self) -> None:
        """Hand everything back: finish and checkpoint each partition, then free its lease."""
        await self._announce(draining=True)
        await self._give_back(list(self.held))

    async def _announce(self, *, draining: bool) -> None:
        self._beat += 1
        await send_beat(self._members, Member(name=self._name, role=ROLE, beat=self._beat, draining=draining))

    async def _look(self) -> None:
        await self._roll.refresh()
        now = time.monotonic()
        seen: dict[int, Seen] = {}
        for entry in await self._leases.all("p.*"):
            partition = int(entry.key.rpartition(".")[2])
            old = self._seen.get(partition)
            if old is not None and old.revision == entry.revision:
                seen[partition] = old
            else:
                owner = unpack(Lease, entry.value or b"").owner
                seen[partition] = Seen(owner, entry.revision, now)
        self._seen = seen

    async def _renew(self) -> None:
        now = time.monotonic()
        due = [p for p, held in self.held.items() if now - held.renewed >= _RENEW_S]
        async with asyncio.TaskGroup() as group:
            for partition in due:
                group.create_task(self._renew_one(partition))

    async def _renew_one(self, partition: int) -> None:
        held = self.held[partition]
        try:
            held.revision = await self._write(partition, self._name, held.revision)
            held.renewed = time.monotonic()
        except WrongLast:
            if await self._is_mine(partition, held):
                return
            logger.warning("lease lost", extra={"partition": partition})
            del self.held[partition]
            await self._lost(partition)
        except TransientError:
            pass  # silence is no reason to stop

    async def _is_mine(self, partition: int, held: Held) -> bool:
        """A renewal whose answer was lost is refused when repeated, though the lease is ours."""
        entry = await self._leases.get(subjects.lease_key(partition))
        if entry is None or entry.value is None or unpack(Lease, entry.value).owner != self._name:
            return False
        held.revision = entry.revision
        return True

    async def _write(self, partition: int, owner: str, revision: int) -> int:
        lease = Lease(owner=owner, beat=self._beat)
        return await self._leases.put(subjects.lease_key(partition), pack(lease), revision=revision)

    async def _settle(self) -> None:
        """Move towards the assignment that follows from who is alive."""
        alive = {member.name for member in self._roll.alive()} | {self._name}
        target = {p for p, owner in assign(sorted(alive), self._count).items() if owner == self._name}
        await self._give_back([p for p in self.held if p not in target])
        now = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for partition in target - self.held.keys():
                seen = self._seen.get(partition)
                if seen is None or not seen.owner or now - seen.since > LEASE_S or seen.owner == self._name:
                    group.create_task(self._take(partition, seen.revision if seen else 0))

    async def _take(self, partition: int, revision: int) -> None:
        try:
            taken = await self._write(partition, self._name, revision)
        except (WrongLast, TransientError):
            return
        self.held[partition] = Held(taken, time.monotonic())
        await self._gained(partition)

    async def _give_back(self, partitions: list[int]) -> None:
        async with asyncio.TaskGroup() as group:
            for partition in partitions:
                group.create_task(self._give_back_one(partition))

    async def _give_back_one(self, partition: int) -> None:
        held = self.held.pop(partition)
        await self._release(partition)
        try:
            await self._write(partition, "", held.revision)
        except (WrongLast, TransientError):
            pass  # it runs out by itself

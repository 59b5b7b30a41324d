"""Reading the logs of this worker's partitions: those that were gained together share a reader for each lane."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from services.vad_worker.checkpoints import Checkpoints
from shared import subjects
from shared.bus import Bus, Stored, Tail
from shared.errors import BusUnavailable
from shared.sessions import LANES, Lane, place_of

_GATHER_S = 0.02
"""Partitions that are gained within this time share a reader."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(eq=False)
class Group:
    """Partitions that were taken at the same time."""

    partitions: set[int]
    tails: dict[Lane, Tail] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class Readers:
    """Which partitions are read, and how far."""

    def __init__(
        self,
        bus: Bus,
        checkpoints: Checkpoints,
        spawn: Spawn,
        on_record: Callable[[Stored], None],
        room: Callable[[], Awaitable[None]],
        prepare: Callable[[set[int]], Awaitable[None]],
    ) -> None:
        self._bus = bus
        self._checkpoints = checkpoints
        self._spawn = spawn
        self._on_record = on_record
        self._room = room
        self._prepare = prepare
        self._groups: dict[int, Group] = {}
        self._joining: set[int] = set()

    def __contains__(self, partition: int) -> bool:
        return partition in self._groups

    def join(self, partition: int, meet: Callable[[str], object]) -> None:
        """Read ``partition`` from its low water on; ``meet`` is told the sessions that have a checkpoint."""
        if not self._joining:
            self._spawn(self._start(meet))
        self._joining.add(partition)

    def leave(self, partition: int) -> None:
        self._joining.discard(partition)
        group = self._groups.pop(partition, None)
        if group is not None:
            group.partitions.discard(partition)
            if not group.partitions and group.task is not None:
                group.task.cancel()

    async def _start(self, meet: Callable[[str], object]) -> None:
        await asyncio.sleep(_GATHER_S)
        group = Group(self._joining)
        self._joining = set()
        if group.partitions:
            self._groups |= dict.fromkeys(group.partitions, group)
            group.task = self._spawn(self._read(group, meet))

    async def _read(self, group: Group, meet: Callable[[str], object]) -> None:
        await self._prepare(group.partitions)
        saved = await self._checkpoints.open(group.partitions)
        for sid in saved.sessions:
            if place_of(sid).partition in group.partitions:
                meet(sid)
        async with asyncio.TaskGroup() as lanes:
            for lane in LANES:
                start = min((saved.low_water[lane].get(p, 0) for p in group.partitions), default=0) + 1
                group.tails[lane] = self._tail(lane, sorted(group.partitions), start)
                lanes.create_task(group.tails[lane].run())

    def _tail(self, lane: Lane, partitions: list[int], start: int) -> Tail:
        filters = [subjects.audio_partition(lane, partition) for partition in partitions]
        return Tail(self._bus, subjects.audio_stream(lane), filters, start, self._on_record, room=self._room)

    def caught_up(self, partition: int) -> bool:
        """Has everything been delivered that was there when reading began?"""
        group = self._groups.get(partition)
        return (
            group is not None
            and bool(group.tails)
            and all(tail.caught_up.is_set() for tail in group.tails.values())
        )

    async def advance(self) -> None:
        """Move positions up over other people's records, for the sake of successors."""
        for group in {id(group): group for group in self._groups.values()}.values():
            for tail in group.tails.values():
                try:
                    await tail.advance()
                except BusUnavailable:
                    return

    def positions(self) -> dict[int, dict[Lane, int]]:
        """Partition -> lane -> stream sequence up to which records were delivered."""
        return {
            partition: {lane: tail.position for lane, tail in group.tails.items()}
            for partition, group in self._groups.items()
        }

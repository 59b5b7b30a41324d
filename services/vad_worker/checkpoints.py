"""Checkpoints and low water: how little a successor has to read again.

A session's checkpoint is written by compare-and-set; a partition's low water says from where its successor
must read so as to meet every session. Nothing is lost when they are late, only read again.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.vad_worker.session import Session
from shared import subjects
from shared.bus import Bucket, Bus, WrongLast
from shared.errors import BadMessage, BusUnavailable
from shared.messages import Checkpoint, LowWater, pack, unpack
from shared.sessions import LANES, Lane

logger = logging.getLogger(__name__)

_AT_ONCE = 32


@dataclass
class Saved:
    """What is known about partitions that are being taken over."""

    sessions: list[str] = field(default_factory=list)
    low_water: dict[Lane, dict[int, int]] = field(default_factory=lambda: {lane: {} for lane in LANES})


class Checkpoints:
    """Writes and reads the checkpoint bucket."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, subjects.CHECKPOINTS)
        self._written: dict[tuple[Lane, int], int] = {}

    async def open(self, partitions: set[int]) -> Saved:
        """Sessions and low water of ``partitions``; waits until JetStream answers."""
        while True:
            try:
                return await self._open(partitions)
            except BusUnavailable as error:
                logger.info("checkpoints not readable yet", extra={"error": str(error)})
                await asyncio.sleep(0.2)

    async def _open(self, partitions: set[int]) -> Saved:
        saved = Saved()
        for entry in await self._bucket.scan(">"):
            kind, partition, rest = entry.key.split(".", 2)
            if int(partition) not in partitions:
                continue
            if kind == "c":
                saved.sessions.append(rest)
            elif kind == "p" and rest in LANES:
                lane: Lane = "live" if rest == "live" else "batch"
                saved.low_water[lane][int(partition)] = _upto(entry.value or b"")
        return saved

    async def save_all(self, sessions: Iterable[Session]) -> list[Session]:
        """Write the checkpoints of quiet sessions; return those that another owner has moved on."""
        stale: list[Session] = []
        todo = [session for session in sessions if session.seg is not None]
        for start in range(0, len(todo), _AT_ONCE):
            part = todo[start : start + _AT_ONCE]
            async with asyncio.TaskGroup() as group:
                writes = [(session, group.create_task(self._save(session))) for session in part]
            stale += [session for session, write in writes if not write.result()]
        return stale

    async def _save(self, session: Session) -> bool:
        if session.gone or not session.quiet or session.saved_upto == session.upto:
            session.dirty_since = None
            return True
        checkpoint = session.checkpoint()
        key = subjects.checkpoint_key(session.place.partition, session.sid)
        session.dirty_since = None
        try:
            session.saved_revision = await self._bucket.put(
                key, pack(checkpoint), revision=session.saved_revision
            )
        except WrongLast:
            return await self._overtake(session, key, checkpoint)
        session.saved_upto = checkpoint.upto
        return True

    async def _overtake(self, session: Session, key: str, mine: Checkpoint) -> bool:
        """Another process wrote meanwhile (or an answer was lost). Whoever is further is right."""
        entry = await self._bucket.get(key)
        if entry is not None and entry.value is not None:
            theirs: Checkpoint = unpack(Checkpoint, entry.value)
            if theirs.upto > mine.upto:
                return False
        session.saved_revision = entry.revision if entry is not None else 0
        return True  # the next round writes over it

    async def delete(self, session: Session) -> None:
        if session.saved_revision:
            try:
                await self._bucket.delete(subjects.checkpoint_key(session.place.partition, session.sid))
            except BusUnavailable:
                pass  # whoever loads it finds the chain finished, and deletes it

    async def save_low_water(
        self, positions: dict[int, dict[Lane, int]], sessions: Iterable[Session]
    ) -> None:
        """Write how far each partition is reflected in checkpoints."""
        water = {(lane, p): seq for p, lanes in positions.items() for lane, seq in lanes.items()}
        for session in sessions:
            place = (session.place.lane, session.place.partition)
            if place in water and session.last_seen > (session.saved_upto or 0):
                first = session.first_seen - 1 if session.saved_upto is None else session.saved_upto
                water[place] = min(water[place], first)
        async with asyncio.TaskGroup() as group:
            for (lane, partition), upto in water.items():
                if upto > self._written.get((lane, partition), 0):
                    group.create_task(self._write_low_water(lane, partition, upto))

    async def _write_low_water(self, lane: Lane, partition: int, upto: int) -> None:
        await self._bucket.put(subjects.low_water_key(lane, partition), pack(LowWater(upto=upto)))
        self._written[lane, partition] = upto

    def forget(self, partition: int) -> None:
        for lane in LANES:
            self._written.pop((lane, partition), None)


def _upto(value: bytes) -> int:
    try:
        water: LowWater = unpack(LowWater, value)
    except BadMessage:
        return 0
    return water.upto

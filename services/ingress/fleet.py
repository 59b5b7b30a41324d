"""What the ingress knows about the workers and the streams behind it: looked up once a second."""

import asyncio
import logging
from dataclasses import dataclass

from shared import subjects
from shared.bus import Bus
from shared.bus.client import ApiError
from shared.errors import BusUnavailable
from shared.members import Roll
from shared.messages import Member
from shared.sessions import LANES

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_FULL = 0.8
_LAG_PER_SLOT = 100
_BLIND_AFTER = 10


@dataclass(frozen=True, slots=True)
class PoolTraits:
    """What the engines of a pool can do, all workers together."""

    languages: tuple[str, ...] = ()
    takes_context: bool = False
    detects_language: bool = False
    max_audio_s: float = 30.0


class Fleet:
    """Who is alive, how far behind they are, how full the streams are."""

    def __init__(self, bus: Bus, pools: list[str]) -> None:
        self._bus = bus
        self._pools = pools
        self._asr = Roll(bus, "asr_worker")
        self._vad = Roll(bus, "vad_worker")
        self._lag: dict[str, int] = {}
        self._fullness: dict[str, float] = {}
        self._failures = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY_S)

    async def look(self) -> None:
        """Look once; when JetStream does not answer, what was known stays true for a while."""
        try:
            await self._asr.refresh()
            await self._vad.refresh()
            for pool in self._pools:
                self._lag[pool] = await self._pending(pool)
            for stream in (*map(subjects.audio_stream, LANES), subjects.SEGMENTS, subjects.RESULTS):
                self._fullness[stream] = await self._used(stream)
        except BusUnavailable as error:
            self._failures += 1
            logger.info("fleet not visible", extra={"error": str(error)})
        else:
            self._failures = 0

    async def _pending(self, pool: str) -> int:
        consumer = subjects.asr_consumer("live", pool)
        try:
            info = await self._bus.api(f"CONSUMER.INFO.{subjects.SEGMENTS}.{consumer}", {})
        except ApiError:
            return 0  # no worker of this pool has ever started
        return int(info["num_pending"]) + int(info["num_ack_pending"])

    async def _used(self, stream: str) -> float:
        info = await self._bus.stream_state(stream)
        limit = int(info["config"]["max_bytes"])
        return int(info["state"]["bytes"]) / limit if limit > 0 else 0.0

    # --- answers -----------------------------------------------------------------------------------------

    def workers(self, pool: str) -> list[Member]:
        return [member for member in self._asr.alive() if pool in member.pools]

    def traits(self, pool: str) -> PoolTraits:
        """What every worker of the pool can do."""
        workers = self.workers(pool)
        if not workers:
            return PoolTraits()
        shared = set.intersection(*(set(worker.languages) for worker in workers))
        return PoolTraits(
            languages=tuple(sorted(shared)),
            takes_context=all(worker.takes_context for worker in workers),
            detects_language=all(worker.detects_language for worker in workers),
            max_audio_s=min(worker.max_audio_s for worker in workers),
        )

    def storage_full(self) -> bool:
        return any(used >= _FULL for used in self._fullness.values())

    def lagging(self, pool: str) -> bool:
        slots = sum(worker.slots for worker in self.workers(pool))
        return self._lag.get(pool, 0) > _LAG_PER_SLOT * max(slots, 1)

    def can_serve(self, pool: str) -> bool:
        return bool(self._vad.alive() and self.workers(pool)) and not self.lagging(pool)

    def troubles(self) -> list[str]:
        """Why a session could not be served now, in words for operators."""
        found: list[str] = []
        if not self._bus.connected or self._failures >= _BLIND_AFTER:
            found.append("NATS does not answer")
        if not self._vad.alive():
            found.append("no VAD worker is alive")
        for pool in self._pools:
            if not self.workers(pool):
                found.append(f"no ASR worker of pool {pool} is alive")
            elif self.lagging(pool):
                found.append(f"the ASR workers of pool {pool} lag behind")
        if self.storage_full():
            found.append("the streams are full")
        return found

"""The whole pipeline inside one event loop, on real NATS and Valkey: for tests that look at its seams.

A ``Pipeline`` holds workers that can be started, crashed (cancelled without a drain) and started again. A
``Client`` is a session without a socket: it writes a log and collects what a client would be told.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from services.asr_worker.__main__ import open_lanes
from services.asr_worker.engines.base import Engine
from services.asr_worker.engines.registry import load_engine
from services.asr_worker.handler import Handler as AsrHandler
from services.ingress.dialects.base import ItemCompleted, ItemFailed, ItemText, SessionEvent, SessionFinished
from services.ingress.follower import Follower
from services.ingress.hub import Hub
from services.ingress.log import Budget, SessionLog
from services.vad_worker.detectors.registry import load_detector
from services.vad_worker.handler import Handler as VadHandler
from services.vad_worker.partitions import Partitions
from shared.audio import FRAME_SAMPLES
from shared.bus import Bus
from shared.bus.topology import declare
from shared.facts import FactWriter
from shared.members import process_name
from shared.messages import SessionSettings
from shared.session_view import SessionView
from shared.sessions import new_session_id
from shared.worker import Lanes, Worker
from tests.servers import NatsServer, ValkeyServer

PARTITIONS = 4
POOL = "scripted"


async def connected(nats: NatsServer, name: str = "test") -> Bus:
    """A connection with all streams declared."""
    bus = await Bus.connect(nats.url, name=name)
    await declare(bus, max_bytes=1 << 30, max_age_s=3600, replicas=1)
    return bus


class Process:
    """Something that runs until it is crashed."""

    def __init__(self, coroutine: Any, bus: Bus) -> None:
        self.task = asyncio.create_task(coroutine)
        self.bus = bus

    async def crash(self) -> None:
        """As kill -9 would: no drain, no goodbye."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.bus.close()


class VadProcess(Process):
    def __init__(self, bus: Bus, handler: VadHandler, partitions: Partitions) -> None:
        self.handler = handler
        self.partitions = partitions
        super().__init__(self._run(), bus)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.handler.run())
            group.create_task(self.partitions.run())


class AsrProcess(Process):
    def __init__(self, bus: Bus, facts: FactWriter, worker: Worker) -> None:
        self.facts = facts
        self.worker = worker
        super().__init__(self._run(), bus)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.facts.run())
            await self.worker.run(asyncio.Event())


class Pipeline:
    """Servers, one hub, and whatever workers a test starts."""

    def __init__(self, nats: NatsServer, valkey: ValkeyServer, bus: Bus) -> None:
        self.nats = nats
        self.valkey = valkey
        self.bus = bus
        self.view = SessionView.connect(valkey.url)
        self.hub = Hub(bus, self.view, process_name())
        self.processes: list[Process] = []

    async def start_vad(self, detector: str = "silero") -> VadProcess:
        bus = await connected(self.nats, "vad")
        facts = FactWriter(SessionView.connect(self.valkey.url))
        handler = VadHandler(bus, facts, load_detector(detector))
        name = process_name()
        partitions = Partitions(bus, name, PARTITIONS, handler.gained, handler.release, handler.lost)
        process = VadProcess(bus, handler, partitions)
        self.processes.append(process)
        return process

    async def start_asr(self, engine: Engine | None = None, **options: Any) -> AsrProcess:
        bus = await connected(self.nats, "asr")
        facts = FactWriter(SessionView.connect(self.valkey.url))
        chosen = engine or load_engine("scripted", **options)
        handler = AsrHandler(bus, facts, chosen, threads=2 * chosen.traits.slots)
        lanes: Lanes = await open_lanes(bus, POOL, 1, lambda: worker.changed())
        worker = Worker(lanes, chosen.traits.slots, handler.final, handler.partial, time_limit_s=30)
        process = AsrProcess(bus, facts, worker)
        self.processes.append(process)
        return process

    async def client(self, **settings: Any) -> "Client":
        client = Client(self, new_session_id("live", 1), SessionSettings(**settings))
        await client.open()
        return client


class Client:
    """A session, and what its client would be told."""

    def __init__(self, pipeline: Pipeline, sid: str, settings: SessionSettings) -> None:
        self.sid = sid
        self.settings = settings
        self.log = SessionLog(pipeline.bus, sid, "test", Budget(1 << 30))
        self.follower = Follower(sid, self.log.ep)
        self.events: list[SessionEvent] = []
        self._pipeline = pipeline
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    async def open(self) -> None:
        await self._pipeline.hub.follow(self.follower)
        await self.log.open(tenant="t", dialect="test", model="m", pool=POOL, settings=self.settings)
        self._tasks = [asyncio.create_task(self.log.run()), asyncio.create_task(self._collect())]

    def close(self) -> None:
        self._pipeline.hub.leave(self.follower)
        for task in self._tasks:
            task.cancel()

    async def _collect(self) -> None:
        while True:
            self.follower.changed.clear()
            for event in self.follower.events():
                self.events.append(event)
                self._news.set()
            await self.follower.changed.wait()

    async def say(self, pcm: bytes) -> None:
        """Append PCM16 at 16 kHz as fast as it is acknowledged."""
        step = 2 * FRAME_SAMPLES
        for start in range(0, len(pcm), step):
            self.log.audio(pcm[start : start + step], start + step, 16_000)
            await self.log.room()

    async def until(self, condition: Callable[[list[SessionEvent]], bool], timeout: float = 30) -> None:
        """Wait until what the client was told meets ``condition``."""
        async with asyncio.timeout(timeout):
            while not condition(self.events):
                self._news.clear()
                await self._news.wait()

    async def finished(self, timeout: float = 30) -> list[SessionEvent]:
        """Finish, and wait for the end; the durable events."""
        self.log.finish("client")
        await self.until(lambda events: any(isinstance(e, SessionFinished) for e in events), timeout)
        return self.durable()

    def durable(self) -> list[SessionEvent]:
        """Everything but drafts, and with what differs from run to run taken out."""
        return [
            ItemCompleted(e.item, e.transcript, e.language, e.emotion, e.start_ms, e.end_ms, 0.0)
            if isinstance(e, ItemCompleted)
            else e
            for e in self.events
            if not isinstance(e, ItemText)
        ]

    def texts(self) -> list[str]:
        return [event.transcript for event in self.events if isinstance(event, ItemCompleted)]

    def failures(self) -> list[ItemFailed]:
        return [event for event in self.events if isinstance(event, ItemFailed)]


@asynccontextmanager
async def pipeline(nats: NatsServer, valkey: ValkeyServer) -> AsyncIterator[Pipeline]:
    """A pipeline without workers yet; everything it starts ends with it."""
    bus = await connected(nats)
    line = Pipeline(nats, valkey, bus)
    hub = Process(line.hub.run(), bus)
    try:
        yield line
    finally:
        for process in [*line.processes, hub]:
            await process.crash()
        await line.view.aclose()


def story(events: list[SessionEvent]) -> list[str]:
    """Events of two sessions, comparable: item ids are keyed by the session, and a text may come before or
    after the next item's beginning. The order that is promised is checked on the way."""
    names: dict[str, str] = {}
    told: list[str] = []
    texts: list[str] = []
    for event in events:
        item = getattr(event, "item", "")
        line = repr(event).replace(item, names.setdefault(item, f"item{len(names)}")) if item else repr(event)
        is_text = isinstance(event, ItemCompleted | ItemFailed)
        if is_text:
            assert any(names[item] in before and "ItemStopped" in before for before in told), (
                "text before stop"
            )
        (texts if is_text else told).append(line)
    ends = [n for n, event in enumerate(events) if isinstance(event, SessionFinished)]
    assert ends in ([], [len(events) - 1]), "something follows the end"
    return told + texts

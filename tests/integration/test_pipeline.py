"""What a client is told when parts of the pipeline die, lie or forget: the same as on a quiet day."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

import services.asr_worker.handler as asr_handler
from services.asr_worker.engines.base import Hypothesis, Job, Traits
from services.asr_worker.engines.registry import load_engine
from services.ingress.dialects.base import ItemCompleted, ItemStarted, Noticed, SessionEvent, SessionFinished
from services.ingress.follower import Follower
from services.ingress.hub import Hub
from services.vad_worker.detectors.registry import load_detector
from shared import subjects
from shared.bus import Bucket, Bus
from shared.bus.tail import read_all
from shared.errors import EngineError
from shared.members import process_name
from shared.messages import AnyVadEvent, Checkpoint, Segment, VadFinished, pack, read_vad_event, unpack
from shared.session_view import SessionView
from tests.pipeline import Client, Pipeline, pipeline, story
from tests.servers import NatsServer, ValkeyServer
from tests.speech import packaged_speech

SPEECH = packaged_speech("two_cities.wav")[: 32_000 * 30]
PIECES = {"silence_ms": 300}
"""Pauses within sentences are enough to cut: many items in little speech."""


@pytest.fixture
async def line(nats_server: NatsServer, valkey: ValkeyServer) -> AsyncIterator[Pipeline]:
    async with pipeline(nats_server, valkey) as running:
        yield running


def completed(events: list[SessionEvent]) -> int:
    return sum(isinstance(event, ItemCompleted) for event in events)


async def quiet_day(line: Pipeline) -> list[str]:
    """The same speech without trouble."""
    client = await line.client(**PIECES)
    await client.say(SPEECH)
    told = story(await client.finished())
    client.close()
    return told


async def chain_of(bus: Bus, client: Client) -> list[AnyVadEvent]:
    stored = await read_all(bus, subjects.SEGMENTS, [subjects.vad_session(client.sid)])
    return [read_vad_event(message.data) for message in stored]


def assert_gap_free(chain: list[AnyVadEvent]) -> None:
    assert [event.ev for event in chain] == list(range(len(chain)))
    segments = [event for event in chain if isinstance(event, Segment)]
    assert [segment.k for segment in segments] == sorted({segment.k for segment in segments})
    assert all(later.start >= earlier.end for earlier, later in itertools.pairwise(segments))
    assert isinstance(chain[-1], VadFinished)


async def redis_of(valkey: ValkeyServer) -> "Redis":
    return Redis.from_url(valkey.url)


async def test_items_start_stop_and_complete_in_order(line: Pipeline) -> None:
    await line.start_vad()
    await line.start_asr()
    client = await line.client(**PIECES)
    await client.say(SPEECH)
    events = await client.finished()
    assert completed(events) >= 5
    assert isinstance(events[-1], SessionFinished)
    assert all(client.texts())
    order = [type(event).__name__ for event in events]
    assert order[:3] == ["ItemStarted", "ItemStopped", "ItemCompleted"] or order[1] == "ItemStopped"
    assert_gap_free(await chain_of(line.bus, client))


async def test_two_runs_of_the_same_audio_are_cut_the_same(line: Pipeline) -> None:
    await line.start_vad()
    await line.start_asr()
    assert await quiet_day(line) == await quiet_day(line)


async def test_a_vad_worker_dies_in_the_middle_of_an_item(line: Pipeline) -> None:
    first = await line.start_vad()
    await line.start_asr()
    expected = await quiet_day(line)
    client = await line.client(**PIECES)
    half = len(SPEECH) // 2
    await client.say(SPEECH[:half])
    await client.until(lambda events: completed(events) >= 2)
    await first.crash()
    await line.start_vad()
    await client.say(SPEECH[half:])
    assert story(await client.finished()) == expected
    assert_gap_free(await chain_of(line.bus, client))


async def test_what_was_published_is_adopted_and_not_decided_anew(line: Pipeline) -> None:
    """The new owner has another detector and no checkpoint: alone it would cut the audio differently."""
    first = await line.start_vad()
    await line.start_asr()

    async def no_checkpoints(*_: object) -> list[object]:
        return []

    first.handler.checkpoints.save_all = no_checkpoints  # type: ignore[method-assign,assignment]
    client = await line.client(**PIECES)
    half = len(SPEECH) // 2
    await client.say(SPEECH[:half])
    await client.until(lambda events: completed(events) >= 2)
    before = await chain_of(line.bus, client)
    await first.crash()
    await line.start_vad(detector="energy")
    await client.say(SPEECH[half:])
    await client.finished()
    chain = await chain_of(line.bus, client)
    assert chain[: len(before)] == before
    assert_gap_free(chain)


async def test_a_checkpoint_of_another_version_is_computed_anew(line: Pipeline) -> None:
    first = await line.start_vad()
    await line.start_asr()
    expected = await quiet_day(line)
    client = await line.client(**PIECES)
    half = len(SPEECH) // 2
    await client.say(SPEECH[:half])
    await client.until(lambda events: completed(events) >= 2)
    session = first.handler.sessions[client.sid]
    while session.saved_upto is None:
        await first.handler.checkpoints.save_all([session])  # as soon as it is quiet
    await first.crash()
    bucket, key = Bucket(line.bus, subjects.CHECKPOINTS), subjects.checkpoint_key(1, client.sid)
    entry = await bucket.get(key)
    assert entry is not None
    saved = unpack(Checkpoint, entry.value or b"")
    strange = msgspec.structs.replace(
        saved, segmenter={"state": {"v": 99}, "windows": {}}, segmenter_version=99
    )
    await bucket.put(key, pack(strange))
    await line.start_vad()
    await client.say(SPEECH[half:])
    assert story(await client.finished()) == expected
    assert_gap_free(await chain_of(line.bus, client))


async def test_a_frozen_owner_cannot_write_behind_its_successor(line: Pipeline) -> None:
    """A zombie whose lease ran out decides and publishes: the chain refuses it, and the client sees one story."""
    zombie = await line.start_vad()
    await line.start_asr()
    expected = await quiet_day(line)
    client = await line.client(**PIECES)
    half = len(SPEECH) // 2
    await client.say(SPEECH[:half])
    await client.until(lambda events: completed(events) >= 1)
    # Its heart stops, its hands do not: it goes on reading and deciding.
    zombie.partitions.run = None  # type: ignore[method-assign,assignment]
    held = dict(zombie.partitions.held)
    zombie.partitions.held.clear()
    assert held
    await line.start_vad()
    await client.say(SPEECH[half:])
    assert story(await client.finished(timeout=50)) == expected
    assert_gap_free(await chain_of(line.bus, client))


class Stubborn:
    """An engine that hangs on its first segment until it is let go, or fails every time."""

    def __init__(self, *, fails: bool = False) -> None:
        self._inner = load_engine("scripted")
        self._fails = fails
        self.reached = threading.Event()
        self.go = threading.Event()

    @property
    def traits(self) -> Traits:
        return self._inner.traits

    def transcribe(self, job: Job) -> Hypothesis:
        if not job.final:
            return self._inner.transcribe(job)
        if self._fails:
            raise EngineError("it always fails")
        self.reached.set()
        self.go.wait(30)
        return self._inner.transcribe(job)

    def close(self) -> None: ...


async def test_an_asr_worker_dies_in_the_middle_of_a_segment(line: Pipeline) -> None:
    await line.start_vad()
    engine = Stubborn()
    doomed = await line.start_asr(engine)
    client = await line.client(**PIECES)
    await client.say(SPEECH)
    await asyncio.to_thread(engine.reached.wait, 20)
    await doomed.crash()
    await line.start_asr()
    told = story(await client.finished())
    engine.go.set()
    assert told == await quiet_day(line)


async def test_an_engine_that_fails_gives_one_failed_outcome_each(line: Pipeline) -> None:
    await line.start_vad()
    await line.start_asr(Stubborn(fails=True))
    client = await line.client(**PIECES)
    await client.say(SPEECH[: 32_000 * 10])
    events = await client.finished(timeout=20)
    started = [event for event in events if isinstance(event, ItemStarted)]
    assert started
    assert [failure.item for failure in client.failures()] == [event.item for event in started]
    assert isinstance(events[-1], SessionFinished)


async def test_a_segment_that_took_workers_down_is_given_up(
    line: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asr_handler, "MAX_ATTEMPTS", 1)
    await line.start_vad()
    engine = Stubborn()
    doomed = await line.start_asr(engine)
    client = await line.client(silence_ms=800)
    await client.say(SPEECH[: 32_000 * 6])
    client.log.finish("client")
    await asyncio.to_thread(engine.reached.wait, 20)
    await doomed.crash()
    await line.start_asr()
    await client.until(lambda events: any(isinstance(e, SessionFinished) for e in events))
    engine.go.set()
    assert [failure.code for failure in client.failures()] == ["poison"]
    assert await line.bus.last(subjects.DEAD, subjects.dead(subjects.SEGMENTS, client.sid)) is not None


async def test_redis_is_wiped_again_and_again(line: Pipeline, valkey: ValkeyServer) -> None:
    await line.start_vad()
    await line.start_asr()
    expected = await quiet_day(line)
    client = await line.client(**PIECES)
    redis = await redis_of(valkey)

    async def wipe() -> None:
        while True:
            await redis.flushall()
            await asyncio.sleep(0.05)

    wiping = asyncio.create_task(wipe())
    await client.say(SPEECH)
    told = story(await client.finished())
    wiping.cancel()
    await redis.aclose()
    assert told == expected


async def test_whoever_comes_after_a_wipe_hears_the_whole_story(line: Pipeline, valkey: ValkeyServer) -> None:
    await line.start_vad()
    await line.start_asr()
    client = await line.client(**PIECES)
    await client.say(SPEECH)
    told = await client.finished()
    redis = await redis_of(valkey)
    await redis.flushall()
    await redis.aclose()
    late = Client(line, client.sid, client.settings)
    late.follower = Follower(client.sid, 1)
    await line.hub.follow(late.follower)
    collecting = asyncio.create_task(late._collect())
    await late.until(lambda events: any(isinstance(e, SessionFinished) for e in events), timeout=10)
    collecting.cancel()
    assert story(late.durable()) == story(told)


async def test_without_redis_the_ingress_reads_jetstream(line: Pipeline, valkey: ValkeyServer) -> None:
    await line.start_vad()
    await line.start_asr()
    expected = await quiet_day(line)
    valkey.kill()
    client = await line.client(**PIECES)
    await client.say(SPEECH)
    assert story(await client.finished()) == expected


async def test_nats_is_killed_and_comes_back(line: Pipeline, nats_server: NatsServer) -> None:
    await line.start_vad()
    await line.start_asr()
    expected = await quiet_day(line)
    client = await line.client(**PIECES)
    half = len(SPEECH) // 2
    await client.say(SPEECH[:half])
    nats_server.restart(hard=True)
    await client.say(SPEECH[half:])
    assert story(await client.finished(timeout=50)) == expected


async def test_a_poison_record_ends_its_own_session_only(line: Pipeline) -> None:
    await line.start_vad()
    await line.start_asr()
    expected = await quiet_day(line)
    victim, other = await line.client(**PIECES), await line.client(**PIECES)
    await victim.say(SPEECH[: 32_000 * 5])
    while victim.log.unacked_samples:
        await asyncio.sleep(0)
    tail = await line.bus.last("AUDIO_LIVE", subjects.audio(victim.sid))
    assert tail is not None
    await line.bus.publish(subjects.audio(victim.sid), b"\xc1poison", expect_last=tail.seq)
    await other.say(SPEECH)
    assert story(await other.finished()) == expected
    await victim.until(lambda events: any(isinstance(e, SessionFinished) for e in events))
    assert victim.events[-1] == SessionFinished("error")


async def test_a_record_that_is_gone_is_noticed(line: Pipeline) -> None:
    client = await line.client(**PIECES)
    await client.say(SPEECH)
    client.log.finish("client")
    while client.log.unacked_samples:
        await asyncio.sleep(0)
    stored = await read_all(line.bus, "AUDIO_LIVE", [subjects.audio(client.sid)])
    await line.bus.api("STREAM.MSG.DELETE.AUDIO_LIVE", {"seq": stored[len(stored) // 2].seq})
    await line.start_vad()
    await line.start_asr()
    await client.until(lambda events: any(isinstance(e, SessionFinished) for e in events))
    assert [event.code for event in client.events if isinstance(event, Noticed)] == ["gap"]
    assert_gap_free(await chain_of(line.bus, client))
    assert completed(client.events) >= 4


async def test_a_session_nobody_feeds_is_finished_as_idle(line: Pipeline) -> None:
    await line.start_vad()
    await line.start_asr()
    client = await line.client(idle_timeout_s=1, **PIECES)
    await client.say(SPEECH[: 32_000 * 4])
    await client.until(lambda events: any(isinstance(e, SessionFinished) for e in events), timeout=20)
    assert client.events[-1] == SessionFinished("idle")
    assert completed(client.events) >= 1


async def test_a_second_worker_takes_its_share_without_losing_a_word(line: Pipeline) -> None:
    await line.start_vad()
    await line.start_asr()
    expected = await quiet_day(line)
    clients = [await line.client(**PIECES) for _ in range(4)]
    half = len(SPEECH) // 2
    await asyncio.gather(*(client.say(SPEECH[:half]) for client in clients))
    second = await line.start_vad()
    async with asyncio.timeout(10):
        while len(second.partitions.held) < 2:
            await asyncio.sleep(0.01)
    await asyncio.gather(*(client.say(SPEECH[half:]) for client in clients))
    for client in clients:
        assert story(await client.finished()) == expected


class Segfault(BaseException):
    """Stands for a native library that takes the process down: nobody handles it."""


class Mined:
    """A detector that dies on full-scale audio."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.hash = inner.hash
        self.fresh, self.load = inner.fresh, inner.load

    def detect(self, states: Any, windows: Any) -> list[float]:
        if any(abs(window).max() > 0.999 for window in windows):
            raise Segfault
        probabilities: list[float] = self._inner.detect(states, windows)
        return probabilities


async def test_a_session_that_kills_its_workers_is_found_and_ended(line: Pipeline) -> None:
    await line.start_asr()
    victim, others = await line.client(**PIECES), [await line.client(**PIECES) for _ in range(2)]
    await victim.say(SPEECH[: 32_000 * 3] + b"\xff\x7f" * 1600)
    for other in others:
        await other.say(SPEECH[: 32_000 * 10])
    deaths = 0
    while deaths < 6:
        worker = await line.start_vad()
        worker.handler._detector = Mined(load_detector("silero"))
        ended = asyncio.create_task(victim.until(lambda es: any(isinstance(e, SessionFinished) for e in es)))
        await asyncio.wait([ended, worker.task], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not worker.task.done():
            break
        deaths += 1
        await worker.crash()
        line.processes.remove(worker)
    assert 2 <= deaths <= 4
    assert victim.events[-1] == SessionFinished("error")
    for other in others:
        events = await other.finished()
        assert completed(events) >= 2
        assert events[-1] == SessionFinished("client")


async def test_a_second_ingress_takes_a_session_over(line: Pipeline) -> None:
    """The epoch says who is the later one: the old socket hears of it, and facts go to the new one."""
    await line.start_vad()
    await line.start_asr()
    expected = await quiet_day(line)
    old = await line.client(**PIECES)
    half = len(SPEECH) // 2
    await old.say(SPEECH[:half])
    await old.until(lambda events: completed(events) >= 1)
    while old.log.unacked_samples:
        await asyncio.sleep(0)

    hub = Hub(line.bus, SessionView.connect(line.valkey.url), process_name())
    listening = asyncio.create_task(hub.run())
    new = Client(line, old.sid, old.settings)
    await new.log.attach(line.bus, "t")
    new.follower = Follower(new.sid, new.log.ep)
    await hub.follow(new.follower)
    new._tasks = [asyncio.create_task(new.log.run()), asyncio.create_task(new._collect())]
    async with asyncio.timeout(10):
        while not old.follower.superseded:
            old.follower.changed.clear()
            await old.follower.changed.wait()
    await new.say(SPEECH[half:])
    assert story(await new.finished()) == expected
    listening.cancel()

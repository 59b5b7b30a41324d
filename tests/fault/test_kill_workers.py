"""Six live sessions, and something dies between the first partial and the final: nobody can tell.

The faults hit real processes; each client's whole story is compared with that of an undisturbed run.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.client import COMPLETED, STARTED, TEXT, Client, Pace, connected, story
from tests.service import Service
from tests.speech import packaged_speech

SESSIONS = 6
SPEED = 2.0
SPEECH = packaged_speech("two_cities.wav")
LENGTH = 32_000 * 12
STEP = 32_000 * 4
TURN = {"type": "server_vad", "threshold": 0.2, "silence_duration_ms": 400}

Story = dict[str, list[dict[str, Any]]]
Fault = Callable[[Service], Awaitable[None]]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(engine="scripted", engine_options={"ms_per_s": 20}) as running:
        yield running


@asynccontextmanager
async def clients(service: Service) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(service.url)) for _ in range(SESSIONS)]


async def speak(client: Client, number: int) -> Story:
    """Each session says something else, in twice real time."""
    await client.update(turn_detection=TURN)
    await client.say(SPEECH[number * STEP : number * STEP + LENGTH], pace=Pace(SPEED))
    return story(await client.finished())


async def until_in_the_middle(client: Client) -> None:
    """Some text was shown of an item that is not complete."""

    def is_draft(event: dict[str, Any]) -> bool:
        done = {each["item_id"] for each in client.events(COMPLETED)}
        return event["type"] == TEXT and event["item_id"] not in done

    await client.until(is_draft)


async def run(service: Service, fault: Fault | None = None) -> list[Story]:
    async with clients(service) as talking, asyncio.TaskGroup() as group:
        told = [group.create_task(speak(client, n)) for n, client in enumerate(talking)]
        if fault is not None:
            await asyncio.gather(*map(until_in_the_middle, talking))
            assert not any(task.done() for task in told), "too late to disturb anybody"
            await fault(service)
    return [task.result() for task in told]


@pytest.fixture(scope="module")
def undisturbed(service: Service) -> list[Story]:
    told = asyncio.run(run(service))
    for each in told:
        kinds = [event["type"] for events in each.values() for event in events]
        assert kinds.count(COMPLETED) == kinds.count(STARTED) >= 2
    return told


async def kill_vad(service: Service) -> None:
    await service.replaced("vad_worker", service.kill("vad_worker"))


async def kill_asr(service: Service) -> None:
    await service.replaced("asr_worker", service.kill("asr_worker"))


async def kill_both(service: Service) -> None:
    vad, asr = service.kill("vad_worker"), service.kill("asr_worker")
    await service.replaced("vad_worker", vad)
    await service.replaced("asr_worker", asr)


async def flush_redis(service: Service) -> None:
    redis = Redis.from_url(service.redis_url)
    assert await redis.dbsize() > 0
    await redis.flushall()
    await redis.aclose()


async def kill_redis(service: Service) -> None:
    await service.replaced("valkey", service.kill("valkey"))


async def kill_nats(service: Service) -> None:
    await service.replaced("nats", service.kill("nats"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", [kill_vad, kill_asr, kill_both, flush_redis, kill_redis, kill_nats])
def test_clients_cannot_tell(service: Service, undisturbed: list[Story], fault: Fault) -> None:
    assert asyncio.run(run(service, fault)) == undisturbed

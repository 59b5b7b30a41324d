"""Random clients against the running service: documented answers only, no traceback, nothing is left behind."""

from collections.abc import Iterator

import httpx
import psutil
import pytest

from shared.audio import SAMPLE_RATE
from tests.client import COMPLETED, connected
from tests.fuzz.crowd import Crowd
from tests.fuzz.luck import LIVE_FRAMES, SEED, TIMES
from tests.service import Service, until
from tests.speech import packaged_speech

MIB = 1 << 20
MAX_GROWTH_MIB = 20
"""Of the ingress, between a first round and a much longer second one."""


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Service]:
    with Service(engine="scripted") as running:
        yield running


def sessions(service: Service) -> int:
    count: int = httpx.get(f"{service.http}/").json()["sessions"]
    return count


def memory_mib(service: Service) -> float:
    rss: int = psutil.Process(service.pid("ingress")).memory_info().rss
    return rss / MIB


@pytest.mark.timeout(120 + 120 * TIMES)
async def test_a_crowd_of_random_clients(fuzzed: Service) -> None:
    before = {(entry["role"], entry["index"]): entry["pid"] for entry in fuzzed.processes()}
    crowd = Crowd(f"ws://127.0.0.1:{fuzzed.port}", SEED)
    await crowd.rage(LIVE_FRAMES // 5)
    await until(lambda: sessions(fuzzed) == 0)
    warm_mib = memory_mib(fuzzed)
    await crowd.rage(LIVE_FRAMES - LIVE_FRAMES // 5)
    await until(lambda: sessions(fuzzed) == 0)
    grown_mib = memory_mib(fuzzed) - warm_mib
    print(f"sent {dict(crowd.sent)} over {crowd.connections} connections; heard {dict(crowd.heard)}")
    print(f"memory of the ingress: {warm_mib:.0f} MiB, then {grown_mib:+.1f} MiB")
    assert crowd.sent.total() >= LIVE_FRAMES
    assert crowd.heard["error"] > LIVE_FRAMES / 10
    assert grown_mib < MAX_GROWTH_MIB
    log = fuzzed.log()
    assert "Traceback" not in log, log[-8000:]
    assert '"level": "error"' not in log, log[-8000:]
    after = {(entry["role"], entry["index"]): entry["pid"] for entry in fuzzed.processes()}
    assert after == before, "somebody died"
    await assert_serves(fuzzed)


async def assert_serves(service: Service) -> None:
    async with connected(service.url) as client:
        await client.say(packaged_speech("two_cities.wav")[: 2 * SAMPLE_RATE * 4])
        events = await client.finished()
    assert len([event for event in events if event["type"] == COMPLETED]) == 1

"""Clients that do what no client should; nobody else may notice (PROTOCOLS A.3, A.7; CONTRACTS 4, 5).

What a client gets for a single wrong frame stands in test_dashscope_door.py.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soxr

from shared.audio import SAMPLE_RATE
from tests.client import (
    COMPLETED,
    STARTED,
    STOPPED,
    TEXT,
    Client,
    Pace,
    check_order,
    connected,
    story,
)
from tests.service import Service
from tests.speech import packaged_speech, word_errors

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def speech() -> bytes:
    return packaged_speech("two_cities.wav")


def seconds(pcm: bytes, start: float, end: float) -> bytes:
    return pcm[2 * int(SAMPLE_RATE * start) : 2 * int(SAMPLE_RATE * end)]


def resampled(pcm: bytes, rate: int) -> bytes:
    samples: np.ndarray = soxr.resample(np.frombuffer(pcm, np.int16), SAMPLE_RATE, rate)
    return samples.astype(np.int16).tobytes()


async def sessions(url: str) -> int:
    """Clients that are inside."""
    parts = urlsplit(url)
    async with httpx.AsyncClient() as http:
        count: int = (await http.get(f"http://{parts.netloc}/")).json()["sessions"]
    return count


async def all_gone(url: str, but: int = 0) -> None:
    """It takes a moment until it is noticed that somebody has hung up."""
    async with asyncio.timeout(30):
        while await sessions(url) > but:
            pass


async def assert_serves(url: str, speech: bytes) -> None:
    async with connected(url) as client:
        await client.say(seconds(speech, 0, 4))
        check_order(await client.finished())
        assert len(client.events(COMPLETED)) == 1


# --- in mid-speech ------------------------------------------------------------------------------------------


async def test_another_rate_in_mid_speech_is_heard_as_one_utterance(service: Service, speech: bytes) -> None:
    """The format changes with the next byte, what ends a turn with the next item."""
    async with connected(service.url) as client:
        await client.say(seconds(speech, 0, 4))
        await client.until(STARTED)
        await client.update(sample_rate=8000, turn_detection={"type": "server_vad", "threshold": 0.9})
        await client.say(resampled(seconds(speech, 4, 10), 8000), rate=8000)
        events = await client.finished()
    async with connected(service.url) as other:
        await other.say(seconds(speech, 0, 10))
        await other.finished()
    check_order(events)
    assert len(client.events(COMPLETED)) == 1
    errors, _ = word_errors(other.transcript(), client.transcript())
    assert errors <= 3, client.transcript()


async def test_manual_mode_in_mid_speech_begins_with_the_next_item(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        await client.say(seconds(speech, 0, 4))
        await client.until(STARTED)
        await client.update(turn_detection=None)
        await client.say(bytes(2 * SAMPLE_RATE))
        await client.until(COMPLETED)
        await client.say(seconds(speech, 0, 4))
        await client.commit()
        events = await client.finished()
    assert [len(client.events(kind)) for kind in (STARTED, STOPPED, COMPLETED)] == [1, 1, 2]
    assert events[-1]["type"] == "session.finished"


async def test_clear_in_a_manual_buffer(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        await client.update(turn_detection=None)
        await client.say(seconds(speech, 0, 6), pace=Pace(6))
        await client.until(TEXT)
        await client.send("input_audio_buffer.clear")
        await client.commit()
        error = (await client.until("error"))["error"]
        assert error["message"].endswith("buffer too small, or have no audio.")
        await client.say(seconds(speech, 6, 10))
        await client.commit()
        await client.finished()
    assert len(client.events("input_audio_buffer.cleared")) == 1
    assert len(client.events(COMPLETED)) == 1
    assert "best of times" not in client.transcript().lower()


# --- much, and fast -----------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
async def test_an_hour_of_silence_as_fast_as_it_goes(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        await client.update(sample_rate=8000)
        for _ in range(60):
            await client.append(bytes(2 * 8000 * 60))
        await assert_serves(service.url, speech)
        await client.say(resampled(seconds(speech, 0, 4), 8000), rate=8000)
        await client.finish()
        await client.until("session.finished", limit_s=150)
    [start] = client.events(STARTED)
    assert 3_600_300 <= start["audio_start_ms"] <= 3_601_500, "not a second of it was lost"
    assert len(client.events(COMPLETED)) == 1
    assert not client.events("error")


async def test_ten_times_real_time_is_told_like_real_time(service: Service, speech: bytes) -> None:
    said = seconds(speech, 0, 20) + bytes(2 * SAMPLE_RATE)

    async def told(pace: Pace | None) -> object:
        async with connected(service.url) as client:
            await client.say(said, pace=pace)
            return story(await client.finished())

    fast, also_fast = await asyncio.gather(told(Pace(10)), told(Pace(10)))
    assert fast == also_fast == await told(None)


# --- at the door --------------------------------------------------------------------------------------------


def upgrade(url: str) -> bytes:
    parts = urlsplit(url)
    return (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


@asynccontextmanager
async def dialled(url: str) -> AsyncIterator[Streams]:
    """A connection of which nothing has been said yet."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def status_of(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1])


async def test_a_thousand_connects_at_once(service: Service, speech: bytes) -> None:
    """Each is let in or told 429; who is inside does not notice."""
    rush = asyncio.Semaphore(250)  # open files are few on some machines

    async def knock(url: str) -> int:
        async with rush, dialled(url) as (reader, writer):
            writer.write(upgrade(url))
            return await status_of(reader)

    with service.another_ingress(rate_limit_rps=5, max_sessions_per_key=50) as url:
        async with connected(url) as client:
            await client.say(seconds(speech, 0, 2))
            answers = Counter(await asyncio.gather(*(knock(url) for _ in range(1000))))
            await client.say(seconds(speech, 2, 4))
            check_order(await client.finished())
            assert len(client.events(COMPLETED)) == 1
        assert set(answers) == {101, 429}
        assert answers[429] > answers[101]
        await all_gone(url)


async def test_slow_handshakes_hold_nobody_up(service: Service, speech: bytes) -> None:
    request = upgrade(service.url)
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(dialled(service.url)) for _ in range(30)]
        for _, writer in slow:
            writer.write(request[: len(request) // 2])
            await writer.drain()
        await assert_serves(service.url, speech)
        for at in range(len(request) // 2, len(request), 7):
            for _, writer in slow:
                writer.write(request[at : at + 7])
                await writer.drain()
        for reader, _ in slow:
            assert await status_of(reader) == 101
            assert b'"session.created"' in await reader.readuntil(b"}}}")
    await all_gone(service.url)


@pytest.mark.parametrize("rubbish", [b"\x00" * 100, b"HELO there", b"\x16\x03\x01" + bytes(300)])
async def test_what_is_no_http_is_hung_up_on(service: Service, rubbish: bytes) -> None:
    async with dialled(service.url) as (reader, writer):
        writer.write(rubbish + b"\r\n\r\n")
        answer = await reader.read()
    assert answer[:12] in (b"", b"HTTP/1.1 400"), answer


async def test_another_tenants_session_is_out_of_reach(service: Service, speech: bytes) -> None:
    with service.another_ingress(api_keys="acme:secret, other:key") as url:
        async with connected(url, key="secret") as mine:
            await mine.say(seconds(speech, 0, 3))
            await mine.until(STARTED)
            sid = mine.session_id
            async with connected(url, key="key", resume="1", session_id=sid, cursor="0.0.0") as thief:
                first = thief.events()[0]
                if first["type"] == "error":
                    assert first["error"]["code"] == "session_not_found"
                else:
                    assert thief.session_id != sid
                    await thief.finished()
                assert not thief.events(STARTED)
            await mine.say(seconds(speech, 3, 4))
            check_order(await mine.finished())
            assert len(mine.events(COMPLETED)) == 1


# --- below the protocol -------------------------------------------------------------------------------------

HALF_A_FRAME = b"\x81\xfe\xff\xff" + b"mask" + bytes(1000)
"""Says that it is 64 KiB long."""


async def write(client: Client, raw: bytes) -> None:
    client.socket.transport.write(raw)


async def test_a_cut_in_the_middle_of_a_frame_ends_the_session(service: Service, speech: bytes) -> None:
    before = await sessions(service.url)
    async with connected(service.url) as client:
        await client.say(seconds(speech, 0, 4))
        await client.until(STARTED)
        assert await sessions(service.url) == before + 1
        await write(client, HALF_A_FRAME)
        client.socket.transport.abort()
        await all_gone(service.url, before)
    await assert_serves(service.url, speech)


async def test_a_client_that_stops_in_the_middle_of_a_frame_holds_nobody_up(
    service: Service, speech: bytes
) -> None:
    async with connected(service.url) as client:
        await write(client, HALF_A_FRAME)
        await assert_serves(service.url, speech)
        assert client.closed is None
        client.socket.transport.abort()  # a close frame would be part of that frame


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x81\x82mask" + bytes(a ^ b for a, b in zip(b"\xff\xfe", b"ma", strict=True)), 1007),
        (b"\x83\x80mask", 1002),
        (b"\xf1\x80mask", 1002),
        (b"\x81\x02{}", 1002),
        (b"\x80\x80mask", 1002),
    ],
    ids=["not UTF-8", "reserved opcode", "reserved bits", "no mask", "continues nothing"],
)
async def test_frames_that_break_the_rules_of_websockets(
    service: Service, raw: bytes, code: int, speech: bytes
) -> None:
    async with connected(service.url) as client:
        await write(client, raw)
        assert (await client.until_closed())[0] == code
    await all_gone(service.url)

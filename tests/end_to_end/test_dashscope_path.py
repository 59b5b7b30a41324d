"""One session of the DashScope dialect through the real service: modes, order, ends, formats (PROTOCOLS A)."""

import asyncio
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soxr

from services.ingress.log import ended_by
from shared.audio import SAMPLE_RATE
from shared.bus import Bus
from shared.messages import Finished
from tests.client import (
    COMPLETED,
    CREATED,
    STARTED,
    STOPPED,
    TEXT,
    Event,
    Pace,
    check_order,
    connected,
    item_of,
    story,
)
from tests.service import Service
from tests.speech import packaged_speech, word_errors

SEEDS = Path(__file__).parents[1] / "clients"
SAID = (
    "it was the best of times it was the worst of times it was the age of wisdom it was the age of "
    "foolishness it was the epoch of belief"
)
"""In the first ten seconds."""
FAST = 4.0
"""Times real time: fast, and slow enough for partial texts."""


@pytest.fixture(scope="module")
def speech() -> bytes:
    return packaged_speech("two_cities.wav")[: 2 * SAMPLE_RATE * 10]


def silence(seconds: float, rate: int = SAMPLE_RATE) -> bytes:
    return bytes(2 * int(rate * seconds))


def resampled(pcm: bytes, rate: int) -> bytes:
    samples: np.ndarray = soxr.resample(np.frombuffer(pcm, np.int16), SAMPLE_RATE, rate)
    return samples.astype(np.int16).tobytes()


def assert_understood(heard: str) -> None:
    errors, _ = word_errors(SAID, heard)
    assert errors <= 3, heard


def kinds(events: list[Event]) -> list[str]:
    return [event["type"].rpartition(".")[2] for event in events if event["type"] != TEXT]


# --- the two modes ------------------------------------------------------------------------------------------


async def test_vad_mode(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        await client.say(speech, pace=Pace(FAST))
        await client.say(silence(1.0))
        await client.until(COMPLETED)
        events = await client.finished()
    check_order(events)
    assert kinds(events) == [
        "created",
        "speech_started",
        "speech_stopped",
        "committed",
        "created",
        "completed",
        "finished",
    ]
    texts = [event for event in events if event["type"] == TEXT]
    stopped = next(place for place, event in enumerate(events) if event["type"] == STOPPED)
    assert len(texts) >= 2
    assert events.index(texts[0]) < stopped, "no text while the speaker speaks"
    assert any(event["text"] for event in texts), "nothing was ever confirmed"
    assert_understood(client.transcript())
    [start], [stop] = client.events(STARTED), client.events(STOPPED)
    assert 300 <= start["audio_start_ms"] <= 1500
    assert 9_000 <= stop["audio_end_ms"] <= 11_000


async def test_manual_mode(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        session = (await client.update(turn_detection=None))["session"]
        assert session["turn_detection"] is None
        await client.say(speech, pace=Pace(FAST))
        await client.commit()
        await client.until(COMPLETED)
        await client.say(speech)
        await client.commit()
        events = await client.finished()
    check_order(events, "manual")
    one = ["committed", "created", "completed"]
    assert kinds(events) == ["created", "updated", *one, *one, "finished"]
    partial = next(event for event in events if event["type"] == TEXT)
    created = next(event for event in events if event["type"] == CREATED)
    assert events.index(partial) < events.index(created), "partials flow before the commit"
    assert item_of(partial) == item_of(created)
    first, second = client.events(COMPLETED)
    assert first["transcript"] == second["transcript"]
    assert_understood(first["transcript"])


async def test_the_same_audio_is_told_the_same_at_any_pace_and_in_any_pieces(
    service: Service, speech: bytes
) -> None:
    stories = []
    for chunk_ms, pace in ((100, Pace(FAST)), (100, None), (7, None), (4000, None)):
        async with connected(service.url) as client:
            await client.say(speech, chunk_ms=chunk_ms, pace=pace)
            stories.append(story(await client.finished()))
    assert all(told == stories[0] for told in stories)


async def test_silence_is_answered_by_nothing(service: Service) -> None:
    async with connected(service.url) as client:
        await client.say(silence(10))
        assert kinds(await client.finished()) == ["created", "finished"]


async def test_an_empty_commit_is_told_and_harms_nothing(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        await client.update(turn_detection=None)
        await client.say(silence(0.09))
        await client.commit()
        error = (await client.until("error"))["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", None)
        assert error["message"].startswith("Error committing input audio buffer: buffer too small")
        assert error["event_id"] == "event_commit"
        await client.say(speech)
        await client.commit()
        assert kinds(await client.finished())[-2:] == ["completed", "finished"]
    assert_understood(client.transcript())


async def test_clear_abandons_what_is_open(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        await client.say(speech)
        await client.until(STARTED)
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        await client.say(speech)
        events = await client.finished()
    assert [len(client.events(kind)) for kind in (STARTED, STOPPED, COMPLETED)] == [2, 1, 1]
    assert kinds(events)[-1] == "finished"
    assert item_of(client.events(COMPLETED)[0]) == item_of(client.events(STARTED)[1])
    assert_understood(client.transcript())


# --- session.finish: PROTOCOLS A.6 --------------------------------------------------------------------------


async def test_finish_when_nothing_was_said(service: Service) -> None:
    async with connected(service.url) as client:
        assert kinds(await client.finished()) == ["created", "finished"]


async def test_finish_before_speech_is_announced(service: Service, speech: bytes) -> None:
    """Speech begins at 1.2 s; a tenth of a second of it announces nothing."""
    async with connected(service.url) as client:
        await client.say(speech[: 2 * int(SAMPLE_RATE * 1.3)])
        assert kinds(await client.finished()) == ["created", "finished"]


async def test_finish_in_mid_speech_loses_no_tail(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        await client.say(speech)
        events = await client.finished()
    check_order(events)
    assert kinds(events)[1:] == [
        "speech_started",
        "speech_stopped",
        "committed",
        "created",
        "completed",
        "finished",
    ]
    assert_understood(client.transcript())


async def test_finish_while_an_item_is_being_recognised(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        await client.say(speech + silence(1.0))
        await client.until(STOPPED)
        events = await client.finished()
    check_order(events)
    assert kinds(events)[-2:] == ["completed", "finished"]
    assert_understood(client.transcript())


@pytest.mark.parametrize(("ms", "told"), [(90, []), (3000, ["committed", "created", "completed"])])
async def test_finish_with_uncommitted_audio(
    service: Service, speech: bytes, ms: int, told: list[str]
) -> None:
    async with connected(service.url) as client:
        await client.update(turn_detection=None)
        await client.say(speech[: 2 * SAMPLE_RATE * ms // 1000])
        events = await client.finished()
    assert kinds(events) == ["created", "updated", *told, "finished"]


async def test_a_second_finish_is_ignored_and_what_comes_after_the_end_is_refused(
    service: Service, speech: bytes
) -> None:
    async with connected(service.url) as client:
        await client.say(speech)
        await client.finish()
        await client.say(speech)  # between finish and finished: dropped without a word
        events = await client.finished()
        assert kinds(events).count("error") == 0
        assert kinds(events).count("completed") == 1
        await client.append(silence(0.1))
        assert (await client.until("error"))["error"]["type"] == "invalid_request_error"
        assert (await client.until_closed())[0] == 1000


async def test_a_close_without_finish_discards_what_is_open(service: Service, speech: bytes) -> None:
    async with connected(service.url) as client:
        await client.say(speech)
        await client.until(STARTED)
        await client.socket.close()
    assert not client.events(COMPLETED)
    bus = await Bus.connect(service.nats_url, name="test")
    try:
        await until_finished(bus, client.session_id)
    finally:
        await bus.close()


async def until_finished(bus: Bus, sid: str) -> None:
    """The session's log ends with a record that says: discard."""
    async with asyncio.timeout(20):
        while not isinstance(last := await ended_by(bus, sid), Finished):
            pass
    assert (last.reason, last.discard) == ("closed", True)


# --- formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
async def test_other_sample_rates(service: Service, speech: bytes, rate: int) -> None:
    async with connected(service.url) as client:
        assert (await client.update(sample_rate=rate))["session"]["sample_rate"] == rate
        await client.say(resampled(speech, rate), rate=rate)
        check_order(await client.finished())
    assert_understood(client.transcript())
    [stop] = client.events(STOPPED)
    assert 9_000 <= stop["audio_end_ms"] <= 11_000, "positions are in real milliseconds at any rate"


# --- the samples of seeds/001, rebuilt from their text ------------------------------------------------------


@pytest.fixture(scope="module")
def wav(speech: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seed") / "audio.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(speech)
    return path


@pytest.mark.parametrize("mode", ["manual", "vad"])
def test_seed_sample(service: Service, wav: Path, mode: str) -> None:
    command = [sys.executable, str(SEEDS / f"seed001_{mode}.py"), service.url, str(wav)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = [line.removeprefix("结果: ") for line in done.stdout.splitlines()]
    assert_understood(" ".join(said))

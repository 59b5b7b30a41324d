"""Opus through the real service: the words of PCM, whichever way it is sent; garbage harms nobody."""

import base64
import random

import pytest

from shared.audio import SAMPLE_RATE
from tests.client import BUFFER, COMPLETED, Client, check_order, connected
from tests.opus import ogg_opus, raw_packets
from tests.service import Service
from tests.speech import packaged_speech, word_errors


@pytest.fixture(scope="module")
def speech() -> bytes:
    return packaged_speech("two_cities.wav")[: 2 * SAMPLE_RATE * 10]


@pytest.fixture(scope="module")
def appends(speech: bytes) -> dict[str, list[bytes]]:
    """The ways of sending it."""
    file = ogg_opus(speech)
    return {
        "raw packets": raw_packets(speech),
        "one Ogg file": [file],
        "an Ogg file in pieces": [file[at : at + 1000] for at in range(0, len(file), 1000)],
    }


async def said(client: Client, appends: list[bytes]) -> str:
    for data in appends:
        await client.append(data)
    await client.commit()
    count = len(client.events(COMPLETED)) + 1
    transcript: str = (await client.until(COMPLETED, count=count))["transcript"]
    return transcript


async def test_the_words_are_those_of_pcm(
    service: Service, speech: bytes, appends: dict[str, list[bytes]]
) -> None:
    async with connected(service.url) as client:
        await client.update(turn_detection=None)
        wanted = await said(client, [speech])
        for name, way in appends.items():
            # Named anew each time: whether it is Ogg is decided once for a format.
            await client.update(input_audio_format="pcm")
            await client.update(input_audio_format="opus")
            heard = await said(client, way)
            errors, words = word_errors(wanted, heard)
            assert errors <= 3 < words, (name, heard)  # it ends within a word
        check_order(await client.finished(), "manual")
    assert not client.events("error")


async def test_garbage_is_told_and_harms_nobody(service: Service, appends: dict[str, list[bytes]]) -> None:
    chance = random.Random(3)
    # Three random bytes out of four are a packet, by their form: this one never is.
    garbage = [b"\xff\xff" + chance.randbytes(20) for _ in range(10)]
    async with connected(service.url) as client:
        await client.update(turn_detection=None, input_audio_format="opus")
        for count, data in enumerate(garbage, 1):
            await client.send(
                BUFFER + "append", audio=base64.b64encode(data).decode(), event_id=f"mine_{count}"
            )
            error = (await client.until("error", count=count))["error"]
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_value")
            assert (error["param"], error["event_id"]) == ("audio", f"mine_{count}")
        assert len((await said(client, appends["raw packets"])).split()) > 15
        events = await client.finished()
    check_order(events, "manual")
    assert events[-1]["type"] == "session.finished"

"""OpenAI Realtime transcription through the real service, driven by the `openai` package (PROTOCOLS D.4)."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soxr

from services.cli.system import REALTIME_PATH
from shared.audio import SAMPLE_RATE
from tests.client import connected, masked
from tests.end_to_end.test_dashscope_sdk import GOLDEN, INSTALL_S, SESSION_S, python_of
from tests.service import ROOT, Service, environment
from tests.speech import packaged_speech, word_errors

CLIENT = "openai-3.52.0"
SESSION = ROOT / "tests" / "clients" / "openai_session.py"
PATH = "/v1/realtime"
SAID = (
    "it was the best of times it was the worst of times it was the age of wisdom it was the age of "
    "foolishness it was the epoch of belief"
)
TRANSCRIPTION = "conversation.item.input_audio_transcription."
CLASSES = {
    "session.created": "SessionCreatedEvent",
    "session.updated": "SessionUpdatedEvent",
    "input_audio_buffer.speech_started": "InputAudioBufferSpeechStartedEvent",
    "input_audio_buffer.speech_stopped": "InputAudioBufferSpeechStoppedEvent",
    "input_audio_buffer.committed": "InputAudioBufferCommittedEvent",
    "conversation.item.added": "ConversationItemAdded",
    "conversation.item.done": "ConversationItemDone",
    TRANSCRIPTION + "delta": "ConversationItemInputAudioTranscriptionDeltaEvent",
    TRANSCRIPTION + "completed": "ConversationItemInputAudioTranscriptionCompletedEvent",
    "error": "RealtimeErrorEvent",
}
"""What the package makes of each event; one that it does not know becomes any other class."""

Event = dict[str, Any]


@pytest.fixture(scope="module")
def speech() -> bytes:
    """Ten seconds at 24 kHz."""
    pcm = np.frombuffer(packaged_speech("two_cities.wav")[: 2 * SAMPLE_RATE * 10], dtype="<i2")
    samples: np.ndarray = soxr.resample(pcm, SAMPLE_RATE, 24_000)
    return samples.astype("<i2").tobytes()


@pytest.fixture(scope="module")
def guarded(service: Service) -> Iterator[str]:
    """An ingress with a key; its base URL."""
    with service.another_ingress(api_keys="acme:secret") as url:
        yield url.replace("ws://", "http://").replace(REALTIME_PATH, "/v1")


def converse(url: str, mode: str, speech: bytes, folder: Path) -> tuple[list[Event], Any]:
    """Every event that the package handed to its user, and code and reason of the close."""
    file = folder / "speech.pcm"
    file.write_bytes(speech)
    command = [python_of(CLIENT), str(SESSION), url, str(file), mode, "4"]
    env = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SESSION_S, env=env, check=False)
    assert done.returncode == 0, done.stderr
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        assert event["class"] == CLASSES[event["type"]]
    return events, last["closed"]


def check_golden(events: list[Event], name: str) -> None:
    """As the package told it the last time, but for words, times, ids and deltas (golden/NAME.jsonl)."""
    told = [event for event in masked(events, times=True) if event["type"] != TRANSCRIPTION + "delta"]
    told[-1] |= {"transcript": "", "usage": {**told[-1]["usage"], "seconds": 0}}
    file = GOLDEN / f"{name}.jsonl"
    if os.environ.get("AURICLE_GOLDEN") == "write":
        lines = (json.dumps(event, ensure_ascii=False, sort_keys=True) for event in told)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert told == [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.timeout(INSTALL_S + SESSION_S)
@pytest.mark.parametrize("mode", ["vad", "manual"])
def test_a_session_of_the_official_package(guarded: str, speech: bytes, tmp_path: Path, mode: str) -> None:
    events, closed = converse(guarded, mode, speech, tmp_path)
    check_golden(events, f"{CLIENT}-{mode}")
    assert closed is None
    completed = events[-1]
    errors, _ = word_errors(SAID, completed["transcript"])
    assert errors <= 3, completed["transcript"]
    deltas = [event["delta"] for event in events if event["type"] == TRANSCRIPTION + "delta"]
    assert len(deltas) >= 2, "nothing was told before the end"
    errors, _ = word_errors(completed["transcript"], "".join(deltas))
    assert errors <= 1, deltas  # they are equal to it unless the final pass corrected what was out already
    assert 9.0 <= completed["usage"]["seconds"] <= 11.0
    assert len({event["item_id"] for event in events if "item_id" in event}) == 1


@pytest.mark.parametrize(
    ("mode", "code", "reason"),
    [
        ("wrong-key", 3000, "invalid_request_error.invalid_api_key"),
        ("wrong-model", 4004, "invalid_request_error.model_not_found"),
    ],
)
def test_who_is_not_let_in_is_told(guarded: str, tmp_path: Path, mode: str, code: int, reason: str) -> None:
    [event], closed = converse(guarded, mode, b"", tmp_path)
    assert (event["type"], event["error"]["code"]) == ("error", reason.partition(".")[2])
    assert closed == [code, reason]


def g711(pcm: bytes, codec: str) -> bytes:
    """PCM16 at 8 kHz, encoded by ffmpeg."""
    encoder: Any = av.CodecContext.create("pcm_mulaw" if codec == "audio/pcmu" else "pcm_alaw", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8_000, "mono", "s16"
    samples = np.frombuffer(pcm, dtype="<i2").reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate = 8_000
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


@pytest.mark.parametrize("codec", ["audio/pcmu", "audio/pcma"])
async def test_telephony_audio(service: Service, codec: str) -> None:
    """G.711 as a telephone exchange would send it."""
    samples = np.frombuffer(packaged_speech("two_cities.wav")[: 2 * SAMPLE_RATE * 10], dtype="<i2")
    telephone: np.ndarray = soxr.resample(samples, SAMPLE_RATE, 8_000)
    encoded = g711(telephone.astype("<i2").tobytes(), codec)
    url = service.url.replace(REALTIME_PATH, PATH)
    async with connected(url, model="", intent="transcription") as client:
        audio_input = {"format": {"type": codec}, "turn_detection": None}
        session = {"type": "transcription", "audio": {"input": audio_input}}
        await client.send("session.update", session=session)
        for start in range(0, len(encoded), 1600):
            await client.append(encoded[start : start + 1600])
        await client.commit()
        transcript = (await client.until(TRANSCRIPTION + "completed"))["transcript"]
    errors, _ = word_errors(SAID, transcript)
    assert errors <= 5, transcript

"""OpenAI Realtime transcription, session.update: every field, what is refused, what follows from it."""

from typing import Any

import orjson
import pytest

from services.ingress.dialects.base import (
    Configure,
)
from services.ingress.dialects.openai_realtime import OpenAIRealtime
from shared.messages import AudioFormat, SessionSettings
from tests.unit.openai_dialect import SESSION, configured, dialect, error_of, frame_of, receive, update

PCM = {"type": "audio/pcm", "rate": 24_000}
SERVER_VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
}


# --- the session --------------------------------------------------------------------------------------------


def test_session_created_shows_the_documented_defaults() -> None:
    (frame,) = dialect().open()
    event = orjson.loads(frame)
    assert event["type"] == "session.created"
    assert event["session"] == {
        "id": SESSION,
        "object": "realtime.transcription_session",
        "type": "transcription",
        "expires_at": None,
        "audio": {
            "input": {
                "format": PCM,
                "transcription": {"model": "gpt-4o-transcribe"},
                "noise_reduction": None,
                "turn_detection": SERVER_VAD,
            }
        },
        "include": None,
    }
    assert OpenAIRealtime.audio == AudioFormat(sample_rate=24_000)


def test_an_empty_update_changes_nothing() -> None:
    configure, shown = configured(dialect())
    assert configure == Configure(
        SessionSettings(silence_ms=500), AudioFormat(sample_rate=24_000), event_id="event_1"
    )
    assert (shown["format"], shown["turn_detection"], shown["warnings"]) == (PCM, SERVER_VAD, [])


@pytest.mark.parametrize(
    ("asked", "shown", "audio"),
    [
        ({"type": "audio/pcm"}, PCM, AudioFormat(sample_rate=24_000)),
        (
            {"type": "audio/pcm", "rate": 16_000},
            {"type": "audio/pcm", "rate": 16_000},
            AudioFormat(sample_rate=16_000),
        ),
        ({"type": "audio/pcmu"}, {"type": "audio/pcmu"}, AudioFormat(codec="pcmu", sample_rate=8_000)),
        (
            {"type": "audio/pcma", "rate": 8000},
            {"type": "audio/pcma"},
            AudioFormat(codec="pcma", sample_rate=8_000),
        ),
        (None, PCM, AudioFormat(sample_rate=24_000)),
    ],
)
def test_formats(asked: object, shown: object, audio: AudioFormat) -> None:
    configure, told = configured(dialect(), format=asked)
    assert (configure.format, told["format"]) == (audio, shown)


def test_only_named_fields_change_on_every_level() -> None:
    made = dialect()
    configured(made, format={"type": "audio/pcmu"}, noise_reduction={"type": "near_field", "strength": 0.5})
    configured(made, transcription={"model": "whisper-1", "language": "de", "prompt": "Zoo"})
    configured(made, turn_detection={"type": "server_vad", "threshold": 0.3, "silence_duration_ms": 200})
    configure, shown = configured(
        made,
        transcription={"language": "en"},
        turn_detection={"prefix_padding_ms": 100, "threshold": None},
        noise_reduction={"type": "far_field"},
    )
    assert shown["format"] == {"type": "audio/pcmu"}
    assert shown["transcription"] == {"model": "whisper-1", "language": "en", "prompt": "Zoo"}
    assert shown["turn_detection"] == {**SERVER_VAD, "prefix_padding_ms": 100, "silence_duration_ms": 200}
    assert shown["noise_reduction"] == {"type": "far_field", "strength": 0.5}
    assert configure.settings == SessionSettings(silence_ms=200, prefix_padding_ms=100, language="en")
    assert configure.context == "Zoo"
    configure, shown = configured(made, transcription=None, noise_reduction=None)
    assert (shown["transcription"], shown["noise_reduction"]) == ({"model": "gpt-4o-transcribe"}, None)
    assert (configure.settings.language, configure.context) == ("", "")


def test_turn_detection_null_is_manual() -> None:
    made = dialect()
    configure, shown = configured(made, turn_detection=None)
    assert (configure.settings.mode, shown["turn_detection"]) == ("manual", None)
    assert configured(made, format=PCM)[0].settings.mode == "manual"
    assert configured(made, turn_detection={"type": "server_vad"})[1]["turn_detection"] == SERVER_VAD


@pytest.mark.parametrize(
    ("eagerness", "silence_ms"), [("low", 1600), ("medium", 800), ("auto", 800), ("high", 400)]
)
def test_semantic_vad_is_a_length_of_silence(eagerness: str, silence_ms: int) -> None:
    asked = {"type": "semantic_vad", "eagerness": eagerness}
    configure, shown = configured(dialect(), turn_detection=asked)
    assert (configure.settings.mode, configure.settings.silence_ms) == ("vad", silence_ms)
    assert shown["turn_detection"] == asked
    assert "semantic_vad" in shown["warnings"][0]


def test_thresholds_are_probabilities_and_extremes_are_tamed() -> None:
    for asked, set_to in ((0.5, 0.5), (0, 0.05), (1, 0.95)):
        configure, shown = configured(dialect(), turn_detection={"type": "server_vad", "threshold": asked})
        assert (configure.settings.threshold, shown["turn_detection"]["threshold"]) == (set_to, asked)
    configure, _ = configured(
        dialect(), turn_detection={"type": "server_vad", "silence_duration_ms": 0, "prefix_padding_ms": 9000}
    )
    assert (configure.settings.silence_ms, configure.settings.prefix_padding_ms) == (100, 2000)


def test_keywords_and_prompt_are_context() -> None:
    asked = {"prompt": "About rivers.", "keywords": ["Rhine", "Main"]}
    assert configured(dialect(), transcription=asked)[0].context == "About rivers.\nRhine, Main"
    configure, shown = configured(dialect(takes_context=False), transcription=asked)
    assert (configure.context, len(shown["warnings"])) == ("", 1)


def test_one_possible_language_is_the_language() -> None:
    assert configured(dialect(), transcription={"languages": ["de"]})[0].settings.language == "de"
    configure, shown = configured(dialect(), transcription={"languages": ["de", "en"]})
    assert (configure.settings.language, len(shown["warnings"])) == ("", 1)
    made = dialect(languages=("zh",), detects_language=True)
    configure, shown = configured(made, transcription={"language": "sw"})
    assert (configure.settings.language, len(shown["warnings"])) == ("", 1)


def test_the_model_without_turn_detection() -> None:
    made = dialect()
    configure, shown = configured(made, transcription={"model": "gpt-realtime-whisper"})
    assert (configure.settings.mode, shown["turn_detection"]) == ("manual", None)
    error = error_of(update(made, turn_detection={"type": "server_vad"}))
    assert error["param"] == "session.audio.input.turn_detection"
    made = dialect(model="gpt-realtime-whisper")
    assert orjson.loads(made.open()[0])["session"]["audio"]["input"]["turn_detection"] is None
    assert OpenAIRealtime.defaults(SessionSettings(), "gpt-realtime-whisper").mode == "manual"


INPUT = "session.audio.input."


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"format": {"type": "audio/opus"}}, "format.type"),
        ({"format": {"type": "audio/pcm", "rate": 44_100}}, "format.rate"),
        ({"format": {"type": "audio/pcm", "rate": True}}, "format.rate"),
        ({"format": "pcm16"}, "format"),
        ({"noise_reduction": {"type": "loud"}}, "noise_reduction.type"),
        ({"noise_reduction": {"type": "near_field", "strength": 2}}, "noise_reduction.strength"),
        ({"transcription": "whisper-1"}, "transcription"),
        ({"transcription": {"model": "gpt-9"}}, "transcription.model"),
        ({"transcription": {"model": 4}}, "transcription.model"),
        ({"transcription": {"language": "English"}}, "transcription.language"),
        ({"transcription": {"language": "zh"}}, "transcription.language"),
        ({"transcription": {"languages": ["en", "EN"]}}, "transcription.languages"),
        ({"transcription": {"languages": "en"}}, "transcription.languages"),
        ({"transcription": {"keywords": [1]}}, "transcription.keywords"),
        ({"transcription": {"keywords": ["w"] * 1001}}, "transcription.keywords"),
        ({"transcription": {"prompt": "w" * 40_001}}, "transcription.prompt"),
        ({"transcription": {"delay": "none"}}, "transcription.delay"),
        ({"turn_detection": {"type": "none"}}, "turn_detection.type"),
        ({"turn_detection": {"type": "server_vad", "threshold": 1.1}}, "turn_detection.threshold"),
        (
            {"turn_detection": {"type": "server_vad", "silence_duration_ms": 0.5}},
            "turn_detection.silence_duration_ms",
        ),
        (
            {"turn_detection": {"type": "server_vad", "prefix_padding_ms": -1}},
            "turn_detection.prefix_padding_ms",
        ),
        ({"turn_detection": {"type": "semantic_vad", "eagerness": 1}}, "turn_detection.eagerness"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_of_the_update_takes_effect(
    wrong: dict[str, Any], param: str
) -> None:
    made = dialect(languages=("en",), serves=lambda model: model != "gpt-9")
    before = configured(made, noise_reduction={"type": "near_field"})
    error = error_of(update(made, **{"format": {"type": "audio/pcma"}, **wrong}))
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "invalid_value",
        INPUT + param,
    )
    assert error["event_id"] == "event_1"
    assert configured(made) == before


@pytest.mark.parametrize(
    ("session", "param"),
    [
        (None, "session"),
        ({"type": "realtime"}, "session.type"),
        ({"audio": 1}, "session.audio"),
        ({"audio": {"input": []}}, "session.audio.input"),
        ({"include": ["everything"]}, "session.include"),
        ({"include": "item"}, "session.include"),
    ],
)
def test_a_session_that_is_none(session: object, param: str) -> None:
    assert error_of(receive(dialect(), "session.update", session=session))["param"] == param


def test_logprobs_are_not_available_and_it_says_so() -> None:
    session = {"type": "transcription", "include": ["item.input_audio_transcription.logprobs"]}
    _, reply = receive(dialect(), "session.update", session=session)
    event = frame_of(reply)
    assert event["session"]["include"] == session["include"]
    assert len(event["warnings"]) == 1

"""OpenAI Realtime transcription: every field and event, deltas that join to the transcript, ends, refusals."""

import base64
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.dialects.base import (
    AudioIn,
    ClearIn,
    Close,
    CommitIn,
    Configure,
    Denied,
    ItemAbandoned,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    ItemStopped,
    ItemText,
    Noticed,
    Reply,
    Request,
    SessionEvent,
    SessionFinished,
    Welcome,
)
from services.ingress.dialects.openai_realtime import OpenAIRealtime
from services.ingress.dialects.realtime import MAX_BAD_FRAMES
from shared.messages import AudioFormat, Mode, SessionSettings

SESSION = "sess_" + "a" * 21
PCM = {"type": "audio/pcm", "rate": 24_000}
SERVER_VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
}
TRANSCRIPTION = "conversation.item.input_audio_transcription."


def dialect(model: str = "gpt-4o-transcribe", **more: Any) -> OpenAIRealtime:
    settings = OpenAIRealtime.defaults(more.pop("settings", SessionSettings()), model)
    fields: dict[str, Any] = {"settings": settings, "takes_context": True, **more}
    return OpenAIRealtime(Welcome(session_id=SESSION, model=model, **fields))


def receive(made: OpenAIRealtime, kind: str, **fields: Any) -> Sequence[Request]:
    return made.receive(orjson.dumps({"event_id": "event_1", "type": kind, **fields}).decode())


def update(made: OpenAIRealtime, **audio_input: Any) -> Sequence[Request]:
    session = {"type": "transcription", "audio": {"input": audio_input}}
    return receive(made, "session.update", session=session)


def configured(made: OpenAIRealtime, **audio_input: Any) -> tuple[Configure, dict[str, Any]]:
    """The request, and the input settings that session.updated shows; warnings among them."""
    configure, reply = update(made, **audio_input)
    assert isinstance(configure, Configure)
    event = frame_of(reply)
    assert event["type"] == "session.updated"
    return configure, {**event["session"]["audio"]["input"], "warnings": event.get("warnings", [])}


def frame_of(request: Request) -> dict[str, Any]:
    assert isinstance(request, Reply | Close)
    (frame,) = request.frames
    parsed: dict[str, Any] = orjson.loads(frame)
    return parsed


def error_of(requests: Sequence[Request]) -> dict[str, Any]:
    (request,) = requests
    event = frame_of(request)
    assert event["type"] == "error"
    error: dict[str, Any] = event["error"]
    assert set(error) == {"type", "code", "message", "param", "event_id"}
    return error


def append(made: OpenAIRealtime, data: bytes) -> Sequence[Request]:
    return receive(made, "input_audio_buffer.append", audio=base64.b64encode(data).decode())


def sent(made: OpenAIRealtime, *events: SessionEvent) -> list[dict[str, Any]]:
    frames = [orjson.loads(frame) for event in events for frame in made.send(event)]
    for frame in frames:
        assert frame.pop("event_id").startswith("event_")
    return frames


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


# --- the buffer ---------------------------------------------------------------------------------------------


def test_append_commit_and_clear() -> None:
    made = dialect()
    assert append(made, b"abc") == (AudioIn(b"abc"),)
    assert receive(made, "input_audio_buffer.append", audio="") == ()
    assert error_of(receive(made, "input_audio_buffer.append", audio="!"))["param"] == "audio"
    assert receive(made, "input_audio_buffer.commit") == (CommitIn("event_1"),)
    assert receive(made, "input_audio_buffer.clear") == (ClearIn("event_1"),)


@pytest.mark.parametrize("asked", [PCM, {"type": "audio/pcmu"}, {"type": "audio/pcm", "rate": 8000}])
def test_an_empty_commit_says_how_much_there_was(asked: dict[str, Any]) -> None:
    made = dialect()
    configure, _ = configured(made, turn_detection=None, format=asked)
    bytes_per_s = configure.format.sample_rate * (1 if configure.format.codec == "pcmu" else 2)
    append(made, bytes(bytes_per_s))
    receive(made, "input_audio_buffer.commit")
    append(made, bytes(bytes_per_s // 20))
    receive(made, "input_audio_buffer.commit")
    receive(made, "input_audio_buffer.commit")
    for ms in ("50.00", "0.00"):
        (frame,) = sent(made, Noticed("empty_commit", "mine"))
        assert frame["error"] == {
            "type": "invalid_request_error",
            "code": "input_audio_buffer_commit_empty",
            "message": "Error committing input audio buffer: buffer too small. Expected at least 100ms of "
            f"audio, but buffer only has {ms}ms of audio.",
            "param": None,
            "event_id": "mine",
        }


@pytest.mark.parametrize("kind", ["response.create", "session.finish", 7, None])
def test_unknown_events_are_named(kind: object) -> None:
    error = error_of(dialect().receive(orjson.dumps({"type": kind}).decode()))
    assert (error["code"], error["param"]) == ("invalid_value", "type")
    assert "'session.update'" in error["message"]


def test_ten_bad_frames_in_a_row_close_the_connection() -> None:
    made = dialect()
    for _ in range(MAX_BAD_FRAMES - 1):
        assert error_of(made.receive("{"))["code"] == "invalid_json"
    append(made, b"ab")
    for _ in range(MAX_BAD_FRAMES):
        (answer,) = made.receive(b"\x00")
    assert isinstance(answer, Close)
    assert answer.code == 1007
    assert append(made, b"ab") == ()


# --- items --------------------------------------------------------------------------------------------------


def item_body(item: str) -> dict[str, Any]:
    return {
        "id": item,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }


def utterance(item: str, mode: Mode = "vad") -> list[SessionEvent]:
    return [
        ItemStarted(item, 120, mode),
        ItemText(item, "", "hello", "en"),
        ItemText(item, "Hello", " world", "en"),
        ItemStopped(item, 120, 2000, mode, "silence"),
        ItemCompleted(item, "Hello world.", "en", "", 120, 2000, 30.0),
    ]


def test_an_utterance_in_vad_mode() -> None:
    body = {"previous_item_id": None, "item": item_body("item_1")}
    about: dict[str, Any] = {"item_id": "item_1"}
    assert sent(dialect(), *utterance("item_1")) == [
        {"type": "input_audio_buffer.speech_started", "audio_start_ms": 120, **about},
        {"type": TRANSCRIPTION + "delta", "content_index": 0, "delta": "Hello", **about},
        {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 2000, **about},
        {"type": "input_audio_buffer.committed", "previous_item_id": None, **about},
        {"type": "conversation.item.added", **body},
        {"type": "conversation.item.done", **body},
        {"type": TRANSCRIPTION + "delta", "content_index": 0, "delta": " world.", **about},
        {
            "type": TRANSCRIPTION + "completed",
            "content_index": 0,
            "transcript": "Hello world.",
            "usage": {"type": "duration", "seconds": 1.88},
            "languages": [{"code": "en"}],
            **about,
        },
    ]


def test_manual_items_have_no_speech_events_and_name_the_one_before() -> None:
    frames = sent(dialect(), *utterance("item_1", "manual"), *utterance("item_2", "manual"))
    kinds = [frame["type"].rpartition(".")[2] for frame in frames]
    assert kinds == ["delta", "committed", "added", "done", "delta", "completed"] * 2
    chain = [frame["previous_item_id"] for frame in frames if "previous_item_id" in frame]
    assert chain == [None] * 3 + ["item_1"] * 3


@given(st.lists(st.text("ab ", max_size=4), max_size=6), st.text("ab ", max_size=8))
def test_deltas_join_to_the_transcript_unless_it_contradicts_them(grown: list[str], last: str) -> None:
    made, text = dialect(), ""
    events: list[SessionEvent] = []
    for part in grown:
        text += part
        events.append(ItemText("item_1", text, "draft", ""))
    for transcript in (text + last, last):
        frames = sent(made, *events, ItemCompleted("item_1", transcript, "", "", 0, 0, 0.0, text + "tail"))
        joined = "".join(frame["delta"] for frame in frames[:-1])
        assert frames[-1]["transcript"] == transcript
        assert joined == (transcript if transcript.startswith(text) else text + "tail")
        assert all(frame["delta"] for frame in frames[:-1])


def test_a_failed_and_an_abandoned_item() -> None:
    made = dialect()
    assert sent(made, ItemText("i", "Hello", "", ""), ItemFailed("i", "engine_failed", "No."))[1] == {
        "type": TRANSCRIPTION + "failed",
        "item_id": "i",
        "content_index": 0,
        "error": {"type": "server_error", "code": "engine_failed", "message": "No.", "param": None},
    }
    assert sent(made, ItemText("j", "Hi", "", ""), ItemAbandoned("j"))[1:] == []
    assert not made._deltas, "nothing is kept of items that are over"


def test_notices() -> None:
    made = dialect()
    assert sent(made, Noticed("cleared", "e")) == [{"type": "input_audio_buffer.cleared"}]
    assert sent(made, Noticed("gap", ""), Noticed("reset", "")) == []
    (frame,) = sent(made, Noticed("commit_in_vad_mode", "e"))
    assert frame["error"]["code"] == "input_audio_buffer_commit_empty"


# --- the end ------------------------------------------------------------------------------------------------


def test_an_end_that_the_client_did_not_ask_for_is_told_once() -> None:
    made = dialect()
    (frame,) = sent(made, SessionFinished("idle"))
    assert (frame["error"]["type"], frame["error"]["code"]) == ("server_error", "response_idle_timeout")
    closing = made.fail("idle")
    assert (closing.code, closing.frames) == (1007, ())
    assert sent(dialect(), SessionFinished("closed")) == []


@pytest.mark.parametrize(
    ("model", "why", "code", "reason"),
    [("", "key", 3000, "invalid_api_key"), ("gpt-9", "model", 4004, "model_not_found")],
)
def test_who_is_not_let_in_is_told_after_the_upgrade(model: str, why: Any, code: int, reason: str) -> None:
    closing = OpenAIRealtime.refuse(why, model=model)
    assert isinstance(closing, Close)
    assert (closing.code, closing.reason) == (code, f"invalid_request_error.{reason}")
    error = frame_of(closing)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", reason)
    assert model in error["message"]


def test_too_many_is_told_before_the_upgrade() -> None:
    denied = OpenAIRealtime.refuse("limit", request_id="r1")
    assert isinstance(denied, Denied)
    assert (denied.status, orjson.loads(denied.body)["error"]["code"]) == (429, "rate_limit_exceeded")

"""OpenAI Realtime transcription: the buffer, deltas that join to the transcript, ends and refusals."""

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
    Denied,
    ItemAbandoned,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    ItemStopped,
    ItemText,
    Noticed,
    SessionEvent,
    SessionFinished,
)
from services.ingress.dialects.openai_realtime import OpenAIRealtime
from services.ingress.dialects.realtime import MAX_BAD_FRAMES
from shared.messages import Mode
from tests.unit.openai_dialect import append, configured, dialect, error_of, frame_of, receive, sent

PCM = {"type": "audio/pcm", "rate": 24_000}
TRANSCRIPTION = "conversation.item.input_audio_transcription."


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

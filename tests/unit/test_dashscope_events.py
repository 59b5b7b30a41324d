"""DashScope, session to client: the documented events, their order and fields; refusals and closings."""

import re
from collections.abc import Sequence
from typing import Any, get_args

import orjson
import pytest

from services.ingress.dialects.base import (
    Close,
    Denied,
    ItemAbandoned,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    ItemStopped,
    ItemText,
    Noticed,
    Refusal,
    SessionEvent,
    SessionFinished,
    Trouble,
    Welcome,
)
from services.ingress.dialects.dashscope import DashScope
from services.ingress.dialects.realtime import close_reason
from shared.messages import Mode, SessionSettings

IDLE = "Your session was closed because no response was generated for 300 seconds."


def dialect(**more: Any) -> DashScope:
    fields: dict[str, Any] = {"settings": SessionSettings(), **more}
    return DashScope(Welcome(session_id="sess_" + "a" * 21, model="m", **fields))


def parsed(frames: Sequence[str]) -> list[dict[str, Any]]:
    return [orjson.loads(frame) for frame in frames]


def sent(made: DashScope, *events: SessionEvent) -> list[dict[str, Any]]:
    """Frames without their ids."""
    frames = [frame for event in events for frame in parsed(made.send(event))]
    for frame in frames:
        assert re.fullmatch(r"event_[A-Za-z0-9_-]{21}", frame.pop("event_id"))
    return frames


def ask(made: DashScope, kind: str, **fields: Any) -> None:
    made.receive(orjson.dumps({"type": kind, **fields}).decode())


def utterance(item: str, mode: Mode, transcript: str = "Hi.") -> list[SessionEvent]:
    return [
        ItemStarted(item, 120, mode),
        ItemText(item, "", "hi", "en"),
        ItemStopped(item, 120, 2000, mode, "silence"),
        ItemCompleted(item, transcript, "en", "", 120, 2000, 30.0),
    ]


def item_body(item: str) -> dict[str, Any]:
    return {
        "id": item,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }


TRANSCRIPTION = "conversation.item.input_audio_transcription."


def test_an_utterance_in_vad_mode() -> None:
    assert sent(dialect(), *utterance("item_1", "vad")) == [
        {"type": "input_audio_buffer.speech_started", "audio_start_ms": 120, "item_id": "item_1"},
        {
            "type": TRANSCRIPTION + "text",
            "item_id": "item_1",
            "content_index": 0,
            "language": "en",
            "emotion": "neutral",
            "text": "",
            "stash": "hi",
        },
        {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 2000, "item_id": "item_1"},
        {"type": "input_audio_buffer.committed", "previous_item_id": None, "item_id": "item_1"},
        {"type": "conversation.item.created", "previous_item_id": None, "item": item_body("item_1")},
        {
            "type": TRANSCRIPTION + "completed",
            "item_id": "item_1",
            "content_index": 0,
            "language": "en",
            "emotion": "neutral",
            "transcript": "Hi.",
        },
    ]


def test_an_utterance_in_manual_mode_has_no_speech_events() -> None:
    assert [frame["type"] for frame in sent(dialect(), *utterance("item_1", "manual"))] == [
        TRANSCRIPTION + "text",
        "input_audio_buffer.committed",
        "conversation.item.created",
        TRANSCRIPTION + "completed",
    ]


def test_items_are_chained_by_what_was_committed() -> None:
    frames = sent(
        dialect(),
        *utterance("item_1", "vad"),
        ItemStarted("item_2", 1, "vad"),
        ItemAbandoned("item_2"),
        *utterance("item_3", "vad"),
        *utterance("item_4", "manual"),
    )
    chain = [(f["item"]["id"], f["previous_item_id"]) for f in frames if "item" in f]
    assert chain == [("item_1", None), ("item_3", "item_1"), ("item_4", "item_3")]
    committed = [f for f in frames if f["type"].endswith("committed")]
    assert [(f["item_id"], f["previous_item_id"]) for f in committed] == chain


def test_an_abandoned_item_is_not_mentioned() -> None:
    assert sent(dialect(), ItemAbandoned("item_1")) == []


def test_emotion_and_empty_transcripts() -> None:
    event = ItemCompleted("item_1", "", "", "happy", 0, 0, 0.0)
    (frame,) = sent(dialect(), event)
    assert (frame["emotion"], frame["transcript"], frame["language"]) == ("happy", "", "")


def test_a_failed_item() -> None:
    (frame,) = sent(dialect(), ItemFailed("item_1", "engine_failed", "No."))
    assert frame == {
        "type": TRANSCRIPTION + "failed",
        "item_id": "item_1",
        "content_index": 0,
        "error": {"code": "engine_failed", "message": "No.", "param": None},
    }


@pytest.mark.parametrize(
    ("asked", "heard", "told"),
    [
        ("zh", "", "zh"),
        ("", "en", "en"),
        ("", "", ""),
        ("zh", "zh", "zh"),
        ("uk", "ru", "uk"),
        ("zh", "en", "en"),
    ],
)
def test_language(asked: str, heard: str, told: str) -> None:
    """The last: an item that was begun before the client asked for another language."""
    made = dialect(languages=("zh", "en"), detects_language=True)
    ask(made, "session.update", session={"input_audio_transcription": {"language": asked}})
    for event in (ItemText("i", "a", "b", heard), ItemCompleted("i", "a", heard, "", 0, 0, 0.0)):
        (frame,) = sent(made, event)
        assert frame["language"] == told


# --- notices ----------------------------------------------------------------------------------------------


def test_notices() -> None:
    made = dialect()
    assert sent(made, Noticed("cleared", "e1")) == [{"type": "input_audio_buffer.cleared"}]
    assert sent(made, Noticed("gap", ""), Noticed("reset", "")) == []
    (frame,) = sent(made, Noticed("empty_commit", "e2"))
    assert frame["error"] == {
        "type": "invalid_request_error",
        "code": None,
        "message": "Error committing input audio buffer: buffer too small, or have no audio.",
        "param": None,
        "event_id": "e2",
    }


# --- the end ----------------------------------------------------------------------------------------------


def error_codes(frames: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(frame["error"]["type"], frame["error"]["code"]) for frame in frames]


def test_a_session_that_the_client_finished() -> None:
    made = dialect()
    ask(made, "session.finish")
    assert sent(made, SessionFinished("client")) == [{"type": "session.finished"}]
    assert made.fail("draining") == Close(1000, "")


def test_a_client_that_asked_for_the_end_is_answered_though_idleness_was_first() -> None:
    made = dialect()
    ask(made, "session.finish")
    assert sent(made, SessionFinished("idle")) == [{"type": "session.finished"}]


def test_an_idle_session_is_told_once_why_it_is_closed() -> None:
    made = dialect()
    (frame,) = sent(made, SessionFinished("idle"))
    assert frame["error"]["message"] == IDLE
    assert error_codes([frame]) == [("server_error", "response_idle_timeout")]
    assert made.fail("idle") == Close(1007, IDLE)


def test_other_ends() -> None:
    made = dialect()
    ask(made, "session.finish")
    assert error_codes(sent(made, SessionFinished("error"))) == [("server_error", "InternalError")]
    assert sent(dialect(), SessionFinished("closed")) == []


def test_a_session_that_a_drain_brought_to_its_end_is_told_once() -> None:
    made = dialect()
    assert error_codes(sent(made, SessionFinished("admin"))) == [("server_error", "draining")]
    closing = made.fail("draining")
    assert (closing.code, closing.frames) == (1013, ())


@pytest.mark.parametrize(
    ("trouble", "close", "code", "grace_ms"),
    [
        ("overloaded", 1013, "overloaded", 300),
        ("storage_full", 1013, "storage_full", 300),
        ("draining", 1013, "draining", 300),
        ("internal", 1011, "InternalError", 300),
        ("idle", 1007, "response_idle_timeout", 0),
        ("superseded", 1008, "session_superseded", 0),
        ("slow_client", 1008, None, 0),
    ],
)
def test_troubles(trouble: Trouble, close: int, code: str | None, grace_ms: int) -> None:
    made = dialect()
    request = made.fail(trouble)
    assert (request.code, request.grace_ms) == (close, grace_ms)
    assert request.reason
    assert error_codes(parsed(request.frames)) == ([("server_error", code)] if code else [])
    assert made.receive("{}") == (), "it is closed"


def test_every_trouble_has_its_words() -> None:
    for trouble in get_args(Trouble):
        assert len(dialect().fail(trouble).reason.encode()) <= 123


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt-5", "模" * 500, "\ud800"])
def test_unknown_model(model: str) -> None:
    refused = DashScope.refuse("model", model=model)
    assert isinstance(refused, Close)
    assert (refused.code, refused.grace_ms) == (1007, 300)
    assert len(refused.reason.encode()) <= 123
    (frame,) = parsed(refused.frames)
    error = frame["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "model_not_found",
        "model",
    )


@pytest.mark.parametrize(
    ("why", "status", "code"),
    [
        ("key", 401, "InvalidApiKey"),
        ("path", 404, "NotFound"),
        ("limit", 429, "Throttling.RateQuota"),
    ],
)
def test_refused_upgrades(why: Refusal, status: int, code: str) -> None:
    denied = DashScope.refuse(why, request_id="r1")
    assert isinstance(denied, Denied)
    assert denied.status == status
    body = orjson.loads(denied.body)
    assert set(body) == {"code", "message", "request_id"}
    assert (body["code"], body["request_id"]) == (code, "r1")


def test_a_close_reason_is_cut_between_characters() -> None:
    assert close_reason("模" * 50) == "模" * 41

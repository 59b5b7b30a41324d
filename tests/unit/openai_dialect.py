"""The OpenAI dialect in a test's hands: what it is asked, and what it answers."""

import base64
from collections.abc import Sequence
from typing import Any

import orjson

from services.ingress.dialects.base import Close, Configure, Reply, Request, SessionEvent, Welcome
from services.ingress.dialects.openai_realtime import OpenAIRealtime
from shared.messages import SessionSettings

SESSION = "sess_" + "a" * 21


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

"""DashScope's server frames: every event that a client can see, and every refusal, in the vendor's words.

Strings that the vendor documents as strings are never null: its Java samples would throw.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from services.ingress.dialects.base import Close, Trouble
from shared.sessions import random_token

NewId = Callable[[], str]

NEUTRAL = "neutral"
"""Emotion where the engine names none."""
EMPTY_COMMIT = "Error committing input audio buffer: buffer too small, or have no audio."
IDLE = "Your session was closed because no response was generated for {seconds} seconds."
ERROR_GRACE_MS = 300
"""The SDK looks every 100 ms whether it is connected; closed sooner, its user sees only a time-out."""
REASON_BYTES = 123
"""A close frame has room for no more."""
_TRANSCRIPTION = "conversation.item.input_audio_transcription."


class Ending(NamedTuple):
    """How a session that cannot go on is closed; without a code there is no error frame."""

    close: int
    code: str
    message: str
    grace_ms: int = ERROR_GRACE_MS


ENDINGS: Mapping[Trouble, Ending] = {
    "overloaded": Ending(1013, "overloaded", "The service is at its capacity, please try again later."),
    "storage_full": Ending(
        1013, "storage_full", "The service cannot store audio now, please try again later."
    ),
    "draining": Ending(1013, "draining", "The service is shutting down, please connect again."),
    "internal": Ending(1011, "InternalError", "Internal service error."),
    "idle": Ending(1007, "response_idle_timeout", IDLE, 0),
    # 1008 and not 1001 or 1013: those ask the client to come back, and two connections would fight.
    "superseded": Ending(1008, "session_superseded", "The session goes on in another connection.", 0),
    # No frame for a client that does not read: it could not be sent either.
    "slow_client": Ending(1008, "", "The client reads too slowly.", 0),
}

REFUSALS: Mapping[int, tuple[str, str]] = {
    401: ("InvalidApiKey", "Invalid API-key provided."),
    404: ("NotFound", "The requested path does not exist."),
    429: ("Throttling.RateQuota", "Requests rate limit exceeded, please try again later."),
}
"""HTTP status of a refused upgrade -> code and message."""

NAMES: Mapping[type, str] = {type(None): "null", dict: "object", list: "array"}


def new_event_id() -> str:
    return "event_" + random_token(21)


def refusal_body(status: int, request_id: str) -> str:
    """The JSON body of an upgrade refused with ``status`` (401, 404 or 429)."""
    code, message = REFUSALS[status]
    return orjson.dumps({"code": code, "message": message, "request_id": request_id}).decode()


def unknown_model(model: str, new_id: NewId = new_event_id) -> Close:
    """The vendor accepts the upgrade and then closes; so do we."""
    message = f"Model not found: {quoted(model)}."
    frame = Events(new_id).error(message, code="model_not_found", param="model")
    return Close(1007, close_reason(message), (frame,), ERROR_GRACE_MS)


def quoted(value: object) -> str:
    """A client's value inside a message: short, whatever was sent."""
    text = str(value) if isinstance(value, int | float | str) else NAMES[type(value)]
    return f"'{text[:64]}'".encode("utf-8", "replace").decode()


def close_reason(text: str) -> str:
    return text.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore")


class Events:
    """Builds frames; each call is one frame with an id of its own."""

    def __init__(self, new_id: NewId) -> None:
        self._new_id = new_id

    def _frame(self, kind: str, **fields: Any) -> str:
        return orjson.dumps({"event_id": self._new_id(), "type": kind, **fields}).decode()

    def created(self, session: Mapping[str, Any]) -> str:
        return self._frame("session.created", session=session)

    def updated(self, session: Mapping[str, Any], warnings: list[str]) -> str:
        more = {"warnings": warnings} if warnings else {}
        return self._frame("session.updated", session=session, **more)

    def finished(self) -> str:
        return self._frame("session.finished")

    def cleared(self) -> str:
        return self._frame("input_audio_buffer.cleared")

    def started(self, item: str, start_ms: int) -> str:
        return self._frame("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=item)

    def stopped(self, item: str, end_ms: int) -> str:
        return self._frame("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=item)

    def committed(self, item: str, previous: str | None) -> str:
        return self._frame("input_audio_buffer.committed", previous_item_id=previous, item_id=item)

    def item_created(self, item: str, previous: str | None) -> str:
        # "completed" says nothing about recognition, and the transcript is always null: so documented.
        body = {
            "id": item,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        return self._frame("conversation.item.created", previous_item_id=previous, item=body)

    def text(self, item: str, language: str, text: str, stash: str) -> str:
        return self._frame(
            _TRANSCRIPTION + "text",
            item_id=item,
            content_index=0,
            language=language,
            emotion=NEUTRAL,
            text=text,
            stash=stash,
        )

    def completed(self, item: str, language: str, emotion: str, transcript: str) -> str:
        return self._frame(
            _TRANSCRIPTION + "completed",
            item_id=item,
            content_index=0,
            language=language,
            emotion=emotion or NEUTRAL,
            transcript=transcript,
        )

    def failed(self, item: str, code: str, message: str) -> str:
        error = {"code": code, "message": message, "param": None}
        return self._frame(_TRANSCRIPTION + "failed", item_id=item, content_index=0, error=error)

    def error(
        self,
        message: str,
        *,
        code: str | None = "invalid_value",
        param: str | None = None,
        client_id: str = "",
        kind: str = "invalid_request_error",
    ) -> str:
        """``client_id`` is the id of the client's event that this answers."""
        body = {
            "type": kind,
            "code": code,
            "message": message,
            "param": param,
            "event_id": client_id or None,
        }
        return self._frame("error", error=body)

    def ending(self, trouble: Trouble, idle_s: int) -> str:
        """The error frame of a session that ends by ``trouble``."""
        end = ENDINGS[trouble]
        return self.error(end.message.format(seconds=idle_s), code=end.code, kind="server_error")

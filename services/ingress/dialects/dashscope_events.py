"""DashScope's server frames: every event that a client can see, and every refusal, in the vendor's words.

Strings that the vendor documents as strings are never null: its Java samples would throw.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from services.ingress.dialects.base import Close, Denied, Refusal
from services.ingress.dialects.realtime import (
    ERROR_GRACE_MS,
    Frames,
    NewId,
    close_reason,
    new_event_id,
    quoted,
    user_item,
)

NEUTRAL = "neutral"
"""Emotion where the engine names none."""
EMPTY_COMMIT = "Error committing input audio buffer: buffer too small, or have no audio."
_TRANSCRIPTION = "conversation.item.input_audio_transcription."

REFUSALS: Mapping[Refusal, tuple[int, str, str]] = {
    "key": (401, "InvalidApiKey", "Invalid API-key provided."),
    "path": (404, "NotFound", "The requested path does not exist."),
    "limit": (429, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later."),
}
"""Why an upgrade is refused -> HTTP status, code and message."""


def refusal(
    why: Refusal, *, model: str = "", request_id: str = "", new_id: NewId = new_event_id
) -> Denied | Close:
    """An unknown model is told after the upgrade, as the vendor does; all else is an HTTP status."""
    if why == "model":
        message = f"Model not found: {quoted(model)}."
        frame = Events(new_id).error(message, code="model_not_found", param="model")
        return Close(1007, close_reason(message), (frame,), ERROR_GRACE_MS)
    status, code, message = REFUSALS[why]
    body = {"code": code, "message": message, "request_id": request_id}
    return Denied(status, orjson.dumps(body).decode())


class Events(Frames):
    """Every event but ``error``, which the family shares."""

    def created(self, session: Mapping[str, Any]) -> str:
        return self.frame("session.created", session=session)

    def updated(self, session: Mapping[str, Any], warnings: list[str]) -> str:
        more = {"warnings": warnings} if warnings else {}
        return self.frame("session.updated", session=session, **more)

    def finished(self) -> str:
        return self.frame("session.finished")

    def cleared(self) -> str:
        return self.frame("input_audio_buffer.cleared")

    def started(self, item: str, start_ms: int) -> str:
        return self.frame("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=item)

    def stopped(self, item: str, end_ms: int) -> str:
        return self.frame("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=item)

    def committed(self, item: str, previous: str | None) -> str:
        return self.frame("input_audio_buffer.committed", previous_item_id=previous, item_id=item)

    def item_created(self, item: str, previous: str | None) -> str:
        return self.frame("conversation.item.created", previous_item_id=previous, item=user_item(item))

    def text(self, item: str, language: str, text: str, stash: str) -> str:
        return self.frame(
            _TRANSCRIPTION + "text",
            item_id=item,
            content_index=0,
            language=language,
            emotion=NEUTRAL,
            text=text,
            stash=stash,
        )

    def completed(self, item: str, language: str, emotion: str, transcript: str) -> str:
        return self.frame(
            _TRANSCRIPTION + "completed",
            item_id=item,
            content_index=0,
            language=language,
            emotion=emotion or NEUTRAL,
            transcript=transcript,
        )

    def failed(self, item: str, code: str, message: str) -> str:
        error = {"code": code, "message": message, "param": None}
        return self.frame(_TRANSCRIPTION + "failed", item_id=item, content_index=0, error=error)

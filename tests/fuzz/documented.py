"""Everything that a server may say: event types with their fields, errors, closes. What is not here is a bug.

One table for each dialect, out of PROTOCOLS A.4, A.7, D.2 and CONTRACTS 4.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from services.ingress.intake import converter_for
from shared.messages import AudioFormat

Event = dict[str, Any]

_INVALID = "invalid_request_error"
_ENDS = {
    ("server_error", code, None)
    for code in ("overloaded", "storage_full", "draining", "InternalError", "response_idle_timeout")
} | {("server_error", "session_superseded", None)}
_COMMON = {
    (_INVALID, "invalid_json", None),
    (_INVALID, "invalid_value", None),
    (_INVALID, "invalid_value", "type"),
    (_INVALID, "invalid_value", "audio"),
    (_INVALID, "invalid_value", "session"),
    *_ENDS,
}
_ITEM = "conversation.item.input_audio_transcription."
_BUFFER = "input_audio_buffer."


@dataclass(frozen=True)
class Documented:
    """What one dialect may say."""

    events: dict[str, set[str]]
    """Type -> its fields, besides event_id and type."""
    errors: set[tuple[str, str | None, str | None]]
    """(type, code, param)."""
    params: "re.Pattern[str]"
    """Other params that may stand with invalid_value."""
    closes: set[int]
    optional: set[str] = field(default_factory=lambda: {"warnings"})


DASHSCOPE = Documented(
    events={
        "session.created": {"session"},
        "session.updated": {"session"},
        _BUFFER + "speech_started": {"audio_start_ms", "item_id"},
        _BUFFER + "speech_stopped": {"audio_end_ms", "item_id"},
        _BUFFER + "committed": {"previous_item_id", "item_id"},
        _BUFFER + "cleared": set(),
        "conversation.item.created": {"previous_item_id", "item"},
        _ITEM + "text": {"item_id", "content_index", "language", "emotion", "text", "stash"},
        _ITEM + "completed": {"item_id", "content_index", "language", "emotion", "transcript"},
        _ITEM + "failed": {"item_id", "content_index", "error"},
        "session.finished": set(),
        "error": {"error"},
    },
    errors={
        *_COMMON,
        (_INVALID, None, None),  # an empty commit
        (_INVALID, "model_not_found", "model"),
    },
    params=re.compile(
        r"session\.(input_audio_format|sample_rate|store"
        r"|audio(\.input(\.format(\.(type|sample_rate))?)?)?"
        r"|input_audio_transcription(\.(language|corpus(\.text)?))?"
        r"|turn_detection(\.(type|threshold|silence_duration_ms|prefix_padding_ms))?)"
    ),
    closes={1000, 1007, 1008, 1009, 1011, 1013},
)

OPENAI = Documented(
    events={
        "session.created": {"session"},
        "session.updated": {"session"},
        _BUFFER + "speech_started": {"audio_start_ms", "item_id"},
        _BUFFER + "speech_stopped": {"audio_end_ms", "item_id"},
        _BUFFER + "committed": {"previous_item_id", "item_id"},
        _BUFFER + "cleared": set(),
        "conversation.item.added": {"previous_item_id", "item"},
        "conversation.item.done": {"previous_item_id", "item"},
        _ITEM + "delta": {"item_id", "content_index", "delta"},
        _ITEM + "completed": {"item_id", "content_index", "transcript", "usage"},
        _ITEM + "failed": {"item_id", "content_index", "error"},
        "error": {"error"},
    },
    errors={
        *_COMMON,
        (_INVALID, "input_audio_buffer_commit_empty", None),
        (_INVALID, "invalid_api_key", None),
        (_INVALID, "model_not_found", "model"),
    },
    params=re.compile(
        r"session\.(type|include"
        r"|audio(\.input(\.(format(\.(type|rate))?|noise_reduction(\.(type|strength))?"
        r"|transcription(\.(model|language|languages|prompt|keywords|delay))?"
        r"|turn_detection(\.(type|threshold|prefix_padding_ms|silence_duration_ms|idle_timeout_ms|eagerness))?"
        r"))?)?)"
    ),
    closes={1000, 1007, 1008, 1009, 1011, 1013, 3000, 4004},
    optional={"warnings", "languages"},
)

DOCUMENTED = {"dashscope": DASHSCOPE, "openai": OPENAI}
_ERROR_FIELDS = {"type", "code", "message", "param", "event_id"}


def check(documented: Documented, frame: str) -> Event:
    """A server's frame, parsed; raises AssertionError for anything undocumented."""
    event: Event = json.loads(frame)
    assert isinstance(event, dict), frame
    kind = event["type"]
    assert kind in documented.events, f"undocumented event {kind}"
    fields = set(event) - {"event_id", "type"} - documented.optional
    assert fields == documented.events[kind] - documented.optional, f"{kind} with {fields}"
    assert re.fullmatch(r"event_[A-Za-z0-9_-]{21}", event["event_id"]), event["event_id"]
    if kind == "error":
        check_error(documented, event["error"])
    return event


def check_error(documented: Documented, error: Event) -> None:
    assert set(error) == _ERROR_FIELDS, error
    assert isinstance(error["message"], str), error
    assert 0 < len(error["message"]) < 700, "a client's text comes back whole"
    triple = error["type"], error["code"], error["param"]
    is_field = error["code"] == "invalid_value" and documented.params.fullmatch(str(error["param"]))
    assert triple in documented.errors or is_field, f"undocumented error {triple}"


def check_all(documented: Documented, frames: Iterable[str]) -> list[Event]:
    return [check(documented, frame) for frame in frames]


def check_format(audio: AudioFormat) -> None:
    """What a dialect asks for can be converted."""
    converter_for(audio)

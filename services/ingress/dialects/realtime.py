"""What the realtime protocols of DashScope and OpenAI have in common: JSON events, errors, base64, endings.

They are of one family: the vendors gave other names to the same envelope.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson
import pybase64

from services.ingress.dialects.base import Close, Trouble
from shared.sessions import random_token

Fields = dict[str, Any]
NewId = Callable[[], str]

MAX_BAD_FRAMES = 10
"""So many frames in a row that are no events at all end the connection."""
MAX_CLIENT_ID = 512
"""Longer ids are not worth carrying through the session log."""
MAX_AUDIO_CHARS = 15 * 1024 * 1024
"""Longest ``audio`` string of one append."""
ERROR_GRACE_MS = 300
"""DashScope's SDK looks every 100 ms whether it is connected; closed sooner, its user sees only a time-out."""
REASON_BYTES = 123
"""A close frame has room for no more."""
_NAMES: Mapping[type, str] = {type(None): "null", dict: "object", list: "array"}
_TO_STANDARD = str.maketrans("-_", "+/", "\r\n")


# --- words ----------------------------------------------------------------------------------------------


def new_event_id() -> str:
    return "event_" + random_token(21)


def quoted(value: object) -> str:
    """A client's value inside a message: short, whatever was sent."""
    text = str(value) if isinstance(value, int | float | str) else _NAMES[type(value)]
    return f"'{text[:64]}'".encode("utf-8", "replace").decode()


def close_reason(text: str) -> str:
    return text.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore")


# --- what a client sends --------------------------------------------------------------------------------


class NoEvent(Exception):
    """A frame that is no event of this family; the message is for the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Invalid(Exception):
    """A field that cannot be accepted; nothing of its event takes effect."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class AudioError(Exception):
    """This append cannot be used; the message is for the client."""


def read_event(frame: str | bytes) -> Fields:
    """Raises NoEvent."""
    try:
        event = orjson.loads(frame) if isinstance(frame, str) else None
    except orjson.JSONDecodeError:
        raise NoEvent("invalid_json", "The message is not valid JSON.") from None
    if not isinstance(event, dict):
        raise NoEvent("invalid_value", "A message must be a text frame with a JSON object.")
    return event


def client_id(event: Fields) -> str:
    """The id of a client's event; these repeat, and may be anything."""
    given = event.get("event_id")
    return given if isinstance(given, str) and len(given) <= MAX_CLIENT_ID else ""


def number(value: Any, param: str, limits: tuple[int, int], *, whole: bool) -> float:
    low, high = limits
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (whole and value != int(value)):
        kind = "an integer" if whole else "a number"
        raise Invalid(param, f"Invalid value: {quoted(value)}. Expected {kind} from {low} to {high}.")
    return float(value)


def mapping(value: Any, param: str) -> Mapping[str, Any]:
    """Null counts as empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(param, f"Invalid value: {quoted(value)}. Expected an object.")
    return value


def string(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise Invalid(param, f"Invalid value: {quoted(value)}. Expected a string.")
    return value


def decode_audio(audio: object) -> bytes:
    """Base64, standard or URL-safe, padded or not, with or without line ends. Raises AudioError."""
    if not isinstance(audio, str):
        raise AudioError("Invalid audio: expected a base64 string.")
    if len(audio) > MAX_AUDIO_CHARS:
        raise AudioError("Invalid audio: longer than 15 MiB.")
    try:
        return pybase64.b64decode(audio, validate=True)
    except ValueError:
        plain = audio.translate(_TO_STANDARD).rstrip("=")
        try:
            return pybase64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except ValueError:
            raise AudioError("Invalid audio: not base64.") from None


# --- what it is told ------------------------------------------------------------------------------------


class Ending(NamedTuple):
    """How a session that cannot go on is closed; without a code there is no error frame."""

    close: int
    code: str
    message: str
    grace_ms: int = ERROR_GRACE_MS


IDLE = "Your session was closed because no response was generated for {seconds} seconds."
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
ENDED_BY: Mapping[str, Trouble] = {"idle": "idle", "error": "internal", "admin": "draining"}
"""Ends that the client did not ask for: reason of the session's end -> what it is told."""


def user_item(item: str) -> Fields:
    """A committed item. That it is completed says nothing about recognition, and its transcript is always null."""
    return {
        "id": item,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }


class Frames:
    """Builds frames; each call is one frame with an id of its own."""

    def __init__(self, new_id: NewId, idle_s: int = 0) -> None:
        """``idle_s``: after how long without a word a session is closed."""
        self._new_id = new_id
        self._idle_s = idle_s

    def frame(self, kind: str, **fields: Any) -> str:
        return orjson.dumps({"event_id": self._new_id(), "type": kind, **fields}).decode()

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
        return self.frame("error", error=body)

    def ending(self, trouble: Trouble) -> str:
        """The error frame of a session that ends by ``trouble``."""
        end = ENDINGS[trouble]
        return self.error(end.message.format(seconds=self._idle_s), code=end.code, kind="server_error")

    def closing(self, trouble: Trouble, *, told: bool) -> Close:
        """The close of a session that ends by ``trouble``; ``told``: the client has had the error frame."""
        end = ENDINGS[trouble]
        frames = (self.ending(trouble),) if end.code and not told else ()
        return Close(end.close, close_reason(end.message.format(seconds=self._idle_s)), frames, end.grace_ms)

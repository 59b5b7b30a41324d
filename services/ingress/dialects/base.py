"""What a dialect is: a pure translator between a client's frames and the session's words.

A dialect never awaits, reads a clock or does I/O. ``receive`` turns one client frame into requests;
``send`` turns one session event into frames. Whatever a client may do wrong becomes a ``Reply``
in the client's own words, or a ``Close``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from shared.messages import AudioFormat, Mode, SessionSettings

# --- requests: client -> session ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configure:
    """New settings, complete. ``context`` is the context text itself (stored as a blob by the session)."""

    settings: SessionSettings
    format: AudioFormat
    context: str = ""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class AudioIn:
    """Audio in the client's own format: whole samples (a dialect keeps odd bytes back), or what Opus it sent."""

    data: bytes
    skipped: int = 0
    """Bytes of the client's stream that were left out before ``data`` (a WAV header, half a sample)."""
    event_id: str = ""
    """For formats that may turn out to be something else: see ``Dialect.invalid_audio``."""


@dataclass(frozen=True, slots=True)
class CommitIn:
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ClearIn:
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class FinishIn:
    pass


@dataclass(frozen=True, slots=True)
class Reply:
    """Frames to send at once, without touching the session."""

    frames: Sequence[str]


@dataclass(frozen=True, slots=True)
class Close:
    """Send the frames, wait ``grace_ms``, close."""

    code: int
    reason: str
    frames: Sequence[str] = ()
    grace_ms: int = 0


Request = Configure | AudioIn | CommitIn | ClearIn | FinishIn | Reply | Close


# --- events: session -> client --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ItemStarted:
    item: str
    start_ms: int
    mode: Mode


@dataclass(frozen=True, slots=True)
class ItemStopped:
    """The item's audio is complete: it ended by silence, a commit, its greatest length or the session's end."""

    item: str
    start_ms: int
    end_ms: int
    mode: Mode
    cause: str


@dataclass(frozen=True, slots=True)
class ItemText:
    """Confirmed ``text`` only grows; ``stash`` is the draft right behind it."""

    item: str
    text: str
    stash: str
    language: str


@dataclass(frozen=True, slots=True)
class ItemCompleted:
    item: str
    transcript: str
    language: str
    emotion: str
    start_ms: int
    end_ms: int
    engine_ms: float
    text: str = ""
    """The transcript as the end of the confirmed text: it begins like the last ``ItemText.text``, and differs
    where the final pass corrected what had been told."""


@dataclass(frozen=True, slots=True)
class ItemFailed:
    item: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ItemAbandoned:
    """Cleared, or cut off by the end: nothing more will come for this item."""

    item: str


@dataclass(frozen=True, slots=True)
class Noticed:
    """empty_commit, cleared, reset, gap: the answer to something the client asked for."""

    code: str
    event_id: str


@dataclass(frozen=True, slots=True)
class SessionFinished:
    """Everything has been delivered."""

    reason: str


SessionEvent = (
    ItemStarted
    | ItemStopped
    | ItemText
    | ItemCompleted
    | ItemFailed
    | ItemAbandoned
    | Noticed
    | SessionFinished
)

Refusal = Literal["key", "limit", "path", "model"]
"""Why nobody is let in: no valid key, too many, no such path, a model that nobody serves."""
Trouble = Literal["overloaded", "storage_full", "draining", "internal", "idle", "slow_client", "superseded"]


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a dialect is told when a connection was admitted."""

    session_id: str
    model: str
    settings: SessionSettings
    """The deployment's defaults for this dialect."""
    languages: tuple[str, ...] = field(default=())
    """ISO codes the pool's engine knows; empty = any."""
    takes_context: bool = False
    """The pool's engine can use context text."""
    detects_language: bool = False
    """The pool's engine tells the language by itself; one that it cannot be told is left to that."""
    serves: Callable[[str], bool] = field(default=lambda model: True)
    """Whether the session's pool is the one of this model name."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The upgrade itself is refused, over HTTP."""

    status: int
    body: str
    """JSON."""


class Dialect(Protocol):
    """One connection's translator."""

    def open(self) -> Sequence[str]:
        """Frames to send right after the upgrade."""

    def receive(self, frame: str | bytes) -> Sequence[Request]:
        """One client frame as requests, in order. Never raises for anything a client can send."""

    def send(self, event: SessionEvent) -> Sequence[str]:
        """One session event as frames (possibly none)."""

    def invalid_audio(self, message: str, event_id: str) -> Sequence[str]:
        """The audio of an append was not what its format says: frames that tell so; the session goes on."""

    def fail(self, trouble: Trouble) -> Close:
        """The session cannot go on: say so in the client's own words."""


class DialectClass(Protocol):
    """What the door has to know of a dialect before anybody speaks it."""

    audio: AudioFormat
    """What clients send until they say otherwise."""
    model: str
    """What a client gets that names none."""

    def __call__(self, welcome: Welcome) -> Dialect:
        """For one connection."""

    def defaults(self, settings: SessionSettings, model: str, /) -> SessionSettings:
        """The deployment's settings, with what this protocol documents otherwise."""

    def refuse(self, why: Refusal, *, model: str = "", request_id: str = "") -> Denied | Close:
        """How somebody is turned away: before the upgrade, or after it."""

"""What an engine is: audio in, hypothesis out, and a declaration of what it can do.

Engines know nothing of queues, sessions or sockets. Callers ask for traits, never for names.
"""

from dataclasses import dataclass, field
from typing import Protocol

from shared.audio import Floats
from shared.messages import Word


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What an engine declares about itself."""

    name: str
    languages: tuple[str, ...]
    """ISO codes; empty = any."""
    language_id: bool = False
    """Tells which language was spoken."""
    emotion: bool = False
    context: bool = False
    """Can use context text."""
    word_times: bool = False
    max_audio_s: float = 30.0
    """Longest audio of one call."""
    slots: int = 1
    """Calls that make sense at once in one process."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call: float32 audio at 16 kHz mono, and what is known about it."""

    audio: Floats
    language: str = ""
    """ISO code, or empty = detect."""
    context: str = ""
    final: bool = True
    """False: an interim hypothesis of a segment that is still open."""
    session: str = ""
    """Session id: for tests and for engines that keep per-session caches."""
    ordinal: int = 0


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    text: str
    language: str = ""
    emotion: str = ""
    words: tuple[Word, ...] = field(default=())


class Engine(Protocol):
    """Built once per process; ``transcribe`` is called from worker threads, ``slots`` at a time or more."""

    @property
    def traits(self) -> Traits: ...

    def transcribe(self, job: Job) -> Hypothesis:
        """Blocking; releases the GIL while it computes. Raises EngineError when this audio cannot be done."""

    def close(self) -> None: ...

"""Errors sorted by what to do about them.

AuricleError
├── PermanentError      drop it: the same input can only fail again
│   ├── BadMessage      bytes that are not the message they should be
│   ├── AudioExpired    the frames of a claim are older than the log
│   └── Fenced          another writer owns this chain now; stop, do not retry
├── TransientError      retry it: the world may look different soon
│   ├── BusUnavailable  no answer, no leader, time-out, another publish in flight
│   └── LogFull         the stream refuses new messages: back-pressure
└── EngineError         a model's failure on one piece of audio

Everything else that is raised is a bug, and ends the process.
"""


class AuricleError(Exception):
    """Base of all errors that somebody is expected to handle."""


class PermanentError(AuricleError):
    """The same input can only fail again."""


class BadMessage(PermanentError):
    """Bytes that are not the message they should be."""


class AudioExpired(PermanentError):
    """Frames of a claim are older than the first message of their stream."""


class Fenced(PermanentError):
    """Another writer has appended to this chain; ``tail`` is what it wrote last."""

    def __init__(self, message: str, *, tail_seq: int = 0, tail: bytes | None = None) -> None:
        super().__init__(message)
        self.tail_seq = tail_seq
        self.tail = tail


class TransientError(AuricleError):
    """Worth trying again."""


class BusUnavailable(TransientError):
    """JetStream did not answer, or has no leader at the moment."""


class LogFull(TransientError):
    """A stream has reached its size limit and discards new messages."""


class EngineError(AuricleError):
    """The engine failed on one segment."""

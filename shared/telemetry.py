"""Log lines, and how a process of ours runs.

A log message is static; what varies goes in ``extra`` and becomes a field of the JSON line. Never log what
somebody said, audio, or a key. Should one slip in under one of the names in ``WITHHELD``, or as bytes, its
content is left out: a safety net for mistakes, not a licence to try.
"""

import asyncio
import gc
import json
import logging
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import uvloop

WITHHELD = frozenset(
    {
        "text",
        "transcript",
        "stash",
        "context",
        "audio",
        "pcm",
        "api_key",
        "authorization",
        "password",
        "token",
    }
)
_BUILT_IN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller passed as ``extra``, fit to be written."""
    return {name: _safe(name, value) for name, value in vars(record).items() if name not in _BUILT_IN}


def _safe(name: str, value: object) -> object:
    if name in WITHHELD and isinstance(value, str | bytes):
        return f"<{len(value)} withheld>"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return value


class JsonLines(logging.Formatter):
    """One JSON object a line, for machines."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class HumanLines(logging.Formatter):
    """One short line, for a terminal."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        line = f"{time} {record.levelname.lower():<7} {self._role}: {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """uvicorn 0.54 takes an upgrade that was answered with a status for one that was not answered."""
    return "returned without completing handshake" not in record.getMessage()


def configure_logging(role: str, level: str) -> None:
    """All log lines of this process to stderr: JSON, or short lines when somebody watches."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HumanLines(role) if sys.stderr.isatty() else JsonLines(role))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("asyncio", "websockets", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_no_false_alarm)
    sys.excepthook = _log_crash


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger(__name__).critical("crashed", exc_info=(kind, error, trace))


def run(main: Coroutine[Any, Any, int | None]) -> None:
    """Run a service's ``main`` on uvloop until it returns; its result is the exit code."""
    # What was imported stays: the collector need not look at it again, nor at young objects all the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.exit(uvloop.run(main) or 0)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets; whoever waits for it then drains."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def announce_ready(**facts: object) -> None:
    """Tell the supervisor that this process serves: the one line it waits for on our stdout."""
    sys.stdout.write(f"ready {json.dumps(facts)}\n")
    sys.stdout.flush()

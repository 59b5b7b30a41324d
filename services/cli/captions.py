"""Events to captions: ``Transcript`` knows what was said (pure), ``Screen`` draws it.

A final line is printed once and stays; the lines of items that are still open are drawn again in place.
"""

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

_ITEM = "conversation.item.input_audio_transcription."
_BUFFER = "input_audio_buffer."


@dataclass
class Line:
    """One item; times in milliseconds of audio, moments on the caller's clock."""

    item: str
    start_ms: int | None = None
    end_ms: int | None = None
    text: str = ""
    """What is final: the confirmed text, in the end the transcript."""
    stash: str = ""
    """The draft right behind it."""
    failure: str = ""
    partial_at: float | None = None
    """Moment of the first text."""
    stopped_at: float | None = None
    completed_at: float | None = None


@dataclass
class Transcript:
    """All items of a session, in order."""

    lines: dict[str, Line] = field(default_factory=dict)

    def take(self, event: dict[str, Any], now: float) -> Line | None:
        """Learn from an event; the line that it made final, if it did."""
        kind: str = event["type"]
        if "item_id" not in event or not kind.startswith((_ITEM, _BUFFER)):
            return None
        line = self.lines.setdefault(event["item_id"], Line(event["item_id"]))
        match kind.removeprefix(_ITEM).removeprefix(_BUFFER):
            case "speech_started":
                line.start_ms = event["audio_start_ms"]
            case "speech_stopped":
                line.end_ms, line.stopped_at = event["audio_end_ms"], now
            case "text":
                line.text, line.stash = event["text"], event["stash"]
                line.partial_at = line.partial_at or now
            case "completed":
                line.text, line.stash, line.completed_at = event["transcript"], "", now
                return line
            case "failed":
                line.stash, line.completed_at = "", now
                line.failure = event["error"].get("message") or event["error"].get("code") or "failed"
                return line
        return None

    @property
    def finals(self) -> list[Line]:
        return [line for line in self.lines.values() if line.completed_at is not None]

    @property
    def open(self) -> list[Line]:
        """Lines that still change, and have something to show."""
        return [line for line in self.lines.values() if line.completed_at is None and line.text + line.stash]

    def full_text(self) -> str:
        return " ".join(line.text for line in self.finals if line.text)


def timestamp(ms: int) -> str:
    """Minutes and seconds, to the tenth that captions are read with."""
    tenths = round(ms / 100)
    return f"{tenths // 600}:{tenths % 600 // 10:02d}.{tenths % 10}"


def final_line(line: Line) -> Text:
    """``[start – end] text``; the times are left out where the mode has none."""
    out = Text()
    if line.start_ms is not None and line.end_ms is not None:
        out.append(f"[{timestamp(line.start_ms)} – {timestamp(line.end_ms)}] ", style="cyan")
    if line.failure:
        return out.append(f"not recognised: {_printable(line.failure)}", style="red")
    return out.append(_printable(line.text))


def open_line(line: Line, width: int) -> Text:
    """Confirmed text solid, draft dim; of a long line the end, which is what changes."""
    text, stash = _printable(line.text), _printable(line.stash)
    spare = 3 * width - len(stash)
    if len(text) > spare:
        text = "…" + text[-max(spare, 0) :] if spare > 0 else "…"
    start = "" if line.start_ms is None else f"[{timestamp(line.start_ms)} …] "
    return Text.assemble((start, "cyan"), text, (stash, "dim"))


def _printable(text: str) -> str:
    """A server must not move our cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


class Screen:
    """Draws a transcript: in place in a terminal, finals only anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> "Screen":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, transcript: Transcript, finished: Line | None) -> None:
        """Call after each event."""
        if self._live:  # before the print, which draws it again: the line must not stand there twice
            lines = [open_line(line, self._console.width) for line in transcript.open]
            self._live.update(Group(*lines), refresh=True)
        if finished and (finished.text or finished.failure):
            self._console.print(final_line(finished), soft_wrap=not self._live)

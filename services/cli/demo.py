"""`auricle demo`: everything in a temporary folder, real speech through the public door, then it is gone."""

from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from services.cli.captions import Line, Transcript, timestamp
from services.cli.client import Ask, Clock
from services.cli.errors import CommandFailed
from services.cli.files import packaged_speech, read_pcm
from services.cli.process import Signals
from services.cli.stats import percentile
from services.cli.stream import caption
from services.cli.supervisor import Child, supervised
from services.cli.system import Layout, bring_up
from services.cli.workspace import LOG, workspace
from shared.settings import Settings

DEMO_SILENCE_MS = 600
"""Shorter than the default of 800: more finals to watch, at one or two words more wrong."""


async def demo(file: Path | None, settings: Settings) -> None:
    """Raises CommandFailed: what did not work; nothing is left running."""
    if settings.demo_lang != "en":
        raise CommandFailed(f"DEMO_LANG={settings.demo_lang}: only en yet; zh comes with its models", 2)
    speech = file or packaged_speech()
    next(read_pcm(speech), b"")  # a file that is no audio must not wait for everything to come up
    console = Console(highlight=False)
    signals = Signals()
    clock = Clock()
    with workspace("demo", console) as folder:
        layout = Layout(data=folder, settings=settings).with_own_ports()
        transcript = await _play(speech, layout, signals, console, clock)
    _report(transcript, clock, console)


async def _play(speech: Path, layout: Layout, signals: Signals, console: Console, clock: Clock) -> Transcript:
    with (layout.data / LOG).open("ab") as log:
        async with supervised(layout.data, stderr=log, grace_s=5.0) as supervisor:
            signals.hurry = supervisor.kill
            supervisor.on_first_ready = lambda child, seconds: _show_ready(child, seconds, console)
            first, *_ = await signals.until_asked(bring_up(supervisor, layout))
            console.print(f"\n[bold]{speech.name}[/bold] in real time through {first.ws}\n")
            ask = Ask(url=first.ws, silence_ms=DEMO_SILENCE_MS)
            return await signals.until_asked(caption(speech, ask, clock, console))


def _show_ready(child: Child, seconds: float, console: Console) -> None:
    console.print(f"[green]✓[/green] {child.part.role:<12} {seconds:5.2f} s", style="dim")


def delay_s(line: Line, clock: Clock) -> float | None:
    """Stop→final: from the moment we sent the end of the item's audio to its transcript."""
    if line.end_ms is None or line.completed_at is None or not clock.sent_at:
        return None
    return line.completed_at - clock.moment_of(line.end_ms)


def _report(transcript: Transcript, clock: Clock, console: Console) -> None:
    console.print()
    console.print(Padding(transcript.full_text() or "(nothing was said)", (0, 2), expand=False))
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("start", "end", "stop→final"):
        table.add_column(heading, justify="right")
    table.add_column("words", justify="right")
    delays: list[float] = []
    for line in transcript.finals:
        delay = delay_s(line, clock)
        if delay is None or line.start_ms is None or line.end_ms is None:
            continue
        delays.append(delay)
        words = str(len(line.text.split()))
        table.add_row(timestamp(line.start_ms), timestamp(line.end_ms), f"{delay * 1000:.0f} ms", words)
    console.print(Padding(table, (1, 2), expand=False))
    if delays:
        median, worst = percentile(delays, 0.5) * 1000, max(delays) * 1000
        console.print(f"  {len(delays)} finals, stop→final median {median:.0f} ms, longest {worst:.0f} ms")

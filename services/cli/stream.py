"""`auricle stream`: a file through any server of the DashScope dialect, as live captions."""

import asyncio
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import orjson
import typer
from rich.console import Console

from services.cli.captions import Screen, Transcript
from services.cli.client import Ask, Clock, Event, converse
from services.cli.files import read_pcm
from services.cli.process import Signals


async def stream(file: Path, ask: Ask, *, as_json: bool) -> None:
    """Raises CommandFailed, with the line to show."""
    await Signals().until_asked(_print_events(file, ask) if as_json else caption(file, ask, Clock()))


async def caption(file: Path, ask: Ask, clock: Clock, console: Console | None = None) -> Transcript:
    """Show captions while the file is being heard; what was understood in the end."""
    transcript = Transcript()
    loop = asyncio.get_running_loop()
    with Screen(console or Console(highlight=False)) as screen:

        def show(event: Event) -> None:
            screen.show(transcript, transcript.take(event, loop.time()))

        await converse(ask, _opened(file), show, clock)
    return transcript


async def _print_events(file: Path, ask: Ask) -> None:
    await converse(ask, _opened(file), lambda event: typer.echo(orjson.dumps(event)), Clock())


def _opened(file: Path) -> Iterator[bytes]:
    """Decodes the first piece at once: no session is opened for a file that is no audio."""
    chunks = read_pcm(file)
    return chain([next(chunks, b"")], chunks)

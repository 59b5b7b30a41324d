"""The `auricle` command: every subcommand's options, and how errors become one line and an exit code."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.cli.errors import CommandFailed
from services.cli.system import REALTIME_PATH, Layout
from shared.settings import example, listing, load_settings
from shared.telemetry import configure_logging

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Self-hosted real-time speech recognition.",
)

measurements = typer.Typer(no_args_is_help=True, help="Measure a service under load.")
app.add_typer(measurements, name="bench")

DEFAULT_URL = f"ws://127.0.0.1:8001{REALTIME_PATH}"
Engine = Annotated[str, typer.Option(help="Engine of the ASR workers; the default is the setting ENGINE.")]


@app.command()
def up(
    data: Annotated[Path | None, typer.Option(help="Folder for the data of our own servers.")] = None,
    vad_workers: Annotated[int, typer.Option(min=1)] = 1,
    asr_workers: Annotated[int, typer.Option(min=1, help="Of each engine.")] = 1,
    ingresses: Annotated[int, typer.Option(min=1, help="On ports one after the other.")] = 1,
    nats_url: Annotated[str, typer.Option(help="Use this server and start none.")] = "",
    redis_url: Annotated[str, typer.Option(help="Use this server and start none.")] = "",
    engine: Engine = "",
) -> None:
    """Run the whole service on this machine."""
    from services.cli import up as command

    settings = load_settings()
    configure_logging("up", settings.log_level)
    layout = Layout(
        data=(data or settings.data_dir).expanduser().absolute(),
        settings=settings,
        vad_workers=vad_workers,
        asr_workers=asr_workers,
        ingresses=ingresses,
        nats_url=nats_url,
        redis_url=redis_url,
    ).with_engine(engine)
    asyncio.run(command.up(layout))


@app.command()
def demo(
    file: Annotated[Path | None, typer.Argument(help="Any audio file; default: a packaged passage.")] = None,
) -> None:
    """Real speech to live captions through the whole service, in a temporary folder."""
    from services.cli import demo as command

    asyncio.run(command.demo(file, load_settings()))


@app.command()
def stream(
    file: Annotated[Path, typer.Argument(help="Any audio file.")],
    url: Annotated[str, typer.Option(help="Of any server of the DashScope dialect.")] = DEFAULT_URL,
    speed: Annotated[float, typer.Option(min=0, help="Times real time; 0 = as fast as possible.")] = 1.0,
    model: str = "",
    language: Annotated[str, typer.Option(help="ISO code; default: what the server detects.")] = "",
    silence_ms: Annotated[int | None, typer.Option(help="Silence that ends an utterance.")] = None,
    manual: Annotated[bool, typer.Option("--manual", help="One utterance, no speech detection.")] = False,
    api_key: str = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON lines.")] = False,
) -> None:
    """Live captions of a file, against any server."""
    from services.cli import stream as command
    from services.cli.client import Ask

    ask = Ask(
        url=url,
        model=model,
        language=language,
        silence_ms=silence_ms,
        manual=manual,
        speed=speed,
        api_key=api_key,
    )
    asyncio.run(command.stream(file, ask, as_json=as_json))


@measurements.command("live")
def bench_live(
    sessions: Annotated[int, typer.Option(min=1)] = 50,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each session.")] = 60.0,
    spread: Annotated[float, typer.Option(min=0, help="Seconds over which they start.")] = 5.0,
    silence_ms: Annotated[int, typer.Option(help="Silence that ends an utterance.")] = 400,
    vad_workers: Annotated[int, typer.Option(min=1)] = 1,
    asr_workers: Annotated[int, typer.Option(min=1)] = 1,
    ingresses: Annotated[int, typer.Option(min=1)] = 1,
    engine: Engine = "",
    url: Annotated[str, typer.Option(help="A running server, instead of one of our own.")] = "",
    api_key: str = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
) -> None:
    """Many paced sessions of real speech: finals, delays, CPU and memory, and whether they were kept up."""
    from services.cli import bench as command
    from services.cli import report

    load = command.Load(
        sessions=sessions,
        seconds=seconds,
        spread_s=spread,
        silence_ms=silence_ms,
        url=url,
        api_key=api_key,
    )
    layout = Layout(
        data=Path(),
        settings=load_settings(),
        vad_workers=vad_workers,
        asr_workers=asr_workers,
        ingresses=ingresses,
    ).with_engine(engine)
    console = Console(highlight=False)
    result = asyncio.run(command.bench(load, layout, console))
    report.show(result, console)
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
    if not report.is_complete(result):
        raise CommandFailed("not every final was delivered")


@app.command()
def config(
    show_example: Annotated[bool, typer.Option("--example", help="Print .env.example instead.")] = False,
) -> None:
    """Print the effective settings, secrets masked."""
    typer.echo(example() if show_example else listing(load_settings()), nl=False)


def main() -> None:
    """Run the command; whatever was in the way is one line on stderr."""
    for number in (signal.SIGINT, signal.SIGTERM):  # until the command has an event loop that listens to them
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        app()
    except CommandFailed as error:
        if str(error):
            typer.echo(f"auricle: {error}", err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()

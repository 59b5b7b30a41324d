"""Keeps child processes alive, and ends them in order.

Each child has one task that starts it, waits for it and starts it again; the tasks live in one group, so
that whatever goes wrong, leaving the group has killed every process.
"""

import asyncio
import json
import logging
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from services.cli.errors import CommandFailed
from services.cli.process import kill_group, spawn, unwrapped

logger = logging.getLogger(__name__)

DRAIN_ORDER = ("ingress", "vad_worker", "speaker_worker", "asr_worker", "valkey", "nats")
"""Who takes in work ends first; who others need ends last."""
REFUSED_SETTINGS = 2
"""Exit code of a child that cannot work with its settings: starting it again would not help."""
FAST, SLOW, LONG_LIFE_S = 0.2, 5.0, 10.0
"""Seconds before a restart: the first, the longest, and the life after which we are fast again."""
START_ATTEMPTS = 3
"""A child that ends that often before it was ready once will not get ready."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process to keep alive."""

    role: str
    index: int = 0
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    probe: Callable[[], Awaitable[bool]] | None = None
    """Does it serve? None: it prints ``ready {json}`` on stdout when it does."""

    def __str__(self) -> str:
        return f"{self.role} {self.index}"


class ChildFailed(CommandFailed):
    """A part never got ready."""

    def __init__(self, part: Part, code: int) -> None:
        refused = code == REFUSED_SETTINGS
        if refused:  # it has said why, in one line
            super().__init__("", REFUSED_SETTINGS)
        else:
            super().__init__(f"{part} did not get ready: it ended with code {code}")
        self.part = part


class Child:
    """One part and its process of the moment."""

    def __init__(self, part: Part, stderr: int | IO[bytes] | None, changed: Callable[[], None]) -> None:
        self.part = part
        self.pid = 0
        self.facts: dict[str, Any] = {}
        """What it said when it got ready."""
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        """Ended for good."""
        self._stderr = stderr
        self._changed = changed
        self._process: Process | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask it to drain and end."""
        self._stopping.set()
        if self._process and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        self._stopping.set()
        if self._process and self._process.returncode is None:
            kill_group(self._process.pid)

    async def keep(self) -> None:
        """Start it, and start it again when it ends, until it is stopped."""
        pause, attempts = FAST, 0
        try:
            while not self._stopping.is_set():
                began = asyncio.get_running_loop().time()
                code = await self._live()
                if self._stopping.is_set():
                    return
                attempts += 1
                if not self.ready.is_set() and (code == REFUSED_SETTINGS or attempts == START_ATTEMPTS):
                    raise ChildFailed(self.part, code)
                life = asyncio.get_running_loop().time() - began
                pause = FAST if life > LONG_LIFE_S else pause
                facts = {
                    "part": str(self.part),
                    "code": code,
                    "life_s": round(life, 1),
                    "restart_in_s": pause,
                }
                logger.warning("child ended", extra=facts)
                await _pause(self._stopping, pause)
                pause = min(pause * 2, SLOW)
        finally:
            self.gone.set()

    async def _live(self) -> int:
        """One life of the process; its exit code. Being cancelled kills it."""
        process, stdout = await spawn(self.part.argv, self.part.env, stderr=self._stderr)
        self._process, self.pid = process, process.pid
        try:
            if self._stopping.is_set():  # asked while it was being started
                process.terminate()
            self._changed()
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(stdout))
                code = await process.wait()
                watch.cancel()
            return code
        finally:
            kill_group(process.pid)
            await process.wait()

    async def _watch(self, stdout: asyncio.StreamReader) -> None:
        """See it get ready, then keep its stdout empty, so that it never waits for us."""
        if self.part.probe:
            while not await self.part.probe():
                await asyncio.sleep(0.05)  # a server that is not ours tells nobody when it is up
            self._is_ready({})
        async for line in stdout:
            if line.startswith(b"ready "):
                self._is_ready(json.loads(line[6:]))
                break
        while await stdout.read(1 << 16):
            pass

    def _is_ready(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.ready.set()
        self._changed()
        logger.info("child ready", extra={"part": str(self.part), "pid": self.pid})

    def entry(self) -> dict[str, Any]:
        ports = self.facts.get("ports") or dict(self.part.ports)
        return {"role": self.part.role, "index": self.part.index, "pid": self.pid, "ports": ports}


class Supervisor:
    """All children of one command, and the file that tells others about them."""

    def __init__(
        self, folder: Path, group: asyncio.TaskGroup, stderr: int | IO[bytes] | None, grace_s: float
    ) -> None:
        self.children: list[Child] = []
        self.listing = folder / "processes.json"
        self.on_first_ready: Callable[[Child, float], None] = lambda child, seconds: None
        """Called when a part serves for the first time, with the seconds that it took."""
        self._group = group
        self._stderr = stderr
        self._grace_s = grace_s

    async def start(self, *parts: Part) -> list[Child]:
        """Start the parts and wait until all of them serve."""
        children = [Child(part, self._stderr, self._write_listing) for part in parts]
        self.children += children
        began = asyncio.get_running_loop().time()
        for child in children:
            self._group.create_task(child.keep())
        for child in children:
            await child.ready.wait()
            self.on_first_ready(child, asyncio.get_running_loop().time() - began)
        return children

    async def drain(self) -> None:
        """End everything, stage by stage; who does not end in time is killed."""
        for role in DRAIN_ORDER:
            stage = [child for child in self.children if child.part.role == role]
            for child in stage:
                child.stop()
            try:
                async with asyncio.timeout(self._grace_s):
                    await _all_gone(stage)
            except TimeoutError:
                late = [child for child in stage if not child.gone.is_set()]
                for child in late:
                    logger.warning("killed: did not drain in time", extra={"part": str(child.part)})
                    child.kill()
                await _all_gone(late)

    def kill(self) -> None:
        """End everything at once."""
        for child in self.children:
            child.kill()

    def _write_listing(self) -> None:
        entries = [child.entry() for child in self.children if child.pid]
        draft = self.listing.with_suffix(".tmp")
        try:
            draft.write_text(json.dumps(entries, indent=1) + "\n")
            os.replace(draft, self.listing)
        except OSError as error:  # a full disk must not take the service down
            logger.warning("processes.json not written", extra={"reason": str(error)})


@asynccontextmanager
async def supervised(
    folder: Path, *, stderr: int | IO[bytes] | None = None, grace_s: float = 15.0
) -> AsyncIterator[Supervisor]:
    """A supervisor that has ended all its children when the block is left, in order if nothing failed.

    Raises:
        ChildFailed: a part never got ready.
    """
    with unwrapped():
        async with asyncio.TaskGroup() as group:
            supervisor = Supervisor(folder, group, stderr, grace_s)
            try:
                yield supervisor
            finally:
                await supervisor.drain()
                supervisor.listing.unlink(missing_ok=True)


async def _all_gone(children: Sequence[Child]) -> None:
    for child in children:
        await child.gone.wait()


async def _pause(unless: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await unless.wait()
    except TimeoutError:
        pass  # nobody asked us to stop

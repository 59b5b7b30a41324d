"""Child processes that cannot outlive us, and the signals that end us.

A child gets its own session, so that Ctrl-C in the terminal reaches only us and we decide the order of
ending; and the kernel kills it when we die, however we die.
"""

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, TypeVar

from services.cli.errors import CommandFailed
from shared.settings import child_environment

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


async def spawn(
    argv: Sequence[str], env: Mapping[str, str], *, stderr: int | IO[bytes] | None = None
) -> tuple[Process, asyncio.StreamReader]:
    """Start a child; its stdout is the reader.

    The pipe is our own and not asyncio's, whose ``wait()`` may sit on a pipe that a grandchild holds open.
    """
    reader, writing_end = await _pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=DEVNULL,
            stdout=writing_end,
            stderr=stderr,
            env=child_environment(env),
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )
    finally:
        os.close(writing_end)
    return process, reader


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    reading_end, writing_end = os.pipe()
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading_end, "rb", buffering=0)
    )
    return reader, writing_end


def _die_with_parent(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the kernel was told
            os._exit(1)

    return prepare


def kill_group(pid: int) -> None:
    """SIGKILL a child and whatever it has started itself."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nobody left (macOS refuses the group of a zombie)


class Stopped(CommandFailed):
    """A signal asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__("", 128 + number)


class Signals:
    """The first signal asks to end in order, the second to end at once."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.hurry: Callable[[], None] = lambda: None
        """What the second signal does."""
        self._number = signal.SIGTERM
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup means it; but a shell ignores SIGINT for every background job, and nobody means that
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, self._arrived, number)

    def _arrived(self, number: signal.Signals) -> None:
        if self.first.is_set():
            self.hurry()
        self._number = number
        self.first.set()

    async def raise_when_asked(self) -> None:
        """Wait for the first signal. Raises Stopped."""
        await self.first.wait()
        raise Stopped(self._number)

    async def until_asked(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work``, unless a signal comes first. Raises Stopped."""
        with unwrapped():
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self.raise_when_asked())
                result = await work
                watch.cancel()
        return result


@contextmanager
def unwrapped() -> Iterator[None]:
    """Let a task group's only exception out as itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        only: BaseException = group
        while isinstance(only, BaseExceptionGroup) and len(only.exceptions) == 1:
            only = only.exceptions[0]
        raise only from None

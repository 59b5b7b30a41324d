"""Telling Redis: best effort, in order, never in the way of the work that it reports.

Facts go through one bounded queue per process. When Redis is away or slow the oldest are dropped: every
reader can repair itself from JetStream (SPEC.md M5).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from shared.errors import TransientError
from shared.messages import AnyVadEvent, Outcome, Partial
from shared.waiting import happens

logger = logging.getLogger(__name__)

_CAPACITY = 10_000
_AT_ONCE = 64
_PAUSE_S = 0.5


class View(Protocol):
    """The writing half of the session view."""

    async def commit_event(self, sid: str, event: AnyVadEvent, body: bytes) -> object: ...

    async def commit_outcome(self, sid: str, outcome: Outcome, seq: int, body: bytes) -> object: ...

    async def commit_partial(self, sid: str, partial: Partial) -> object: ...


class FactWriter:
    """A queue in front of the session view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._queue: deque[Callable[[], Awaitable[object]]] = deque(maxlen=_CAPACITY)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.failures = 0

    def event(self, sid: str, event: AnyVadEvent, body: bytes) -> None:
        self._put(lambda: self._view.commit_event(sid, event, body))

    def outcome(self, sid: str, outcome: Outcome, seq: int, body: bytes) -> None:
        self._put(lambda: self._view.commit_outcome(sid, outcome, seq, body))

    def partial(self, sid: str, partial: Partial) -> None:
        self._put(lambda: self._view.commit_partial(sid, partial))

    def _put(self, write: Callable[[], Awaitable[object]]) -> None:
        self._queue.append(write)
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_AT_ONCE, len(self._queue)))]
                # The join is commutative, so the batch may arrive in any order.
                answers = await asyncio.gather(*(write() for write in batch), return_exceptions=True)
                await self._judge(answers)
            self._idle.set()

    async def _judge(self, answers: list[object]) -> None:
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        for error in errors:
            if not isinstance(error, TransientError):
                raise error
        if errors:
            self.failures += len(errors)
            logger.warning("facts not written", extra={"count": len(errors), "error": str(errors[0])})
            await asyncio.sleep(_PAUSE_S)

    async def drained(self, timeout: float) -> None:
        """Wait until the queue is empty, at most ``timeout`` seconds."""
        await happens(self._idle, within_s=timeout)

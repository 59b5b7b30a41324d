"""Appends that name their predecessor: no two writers can interleave, and no gap goes unseen.

The error table of SPEC.md §1 lives here and nowhere else.
"""

import asyncio
from collections.abc import Callable

from shared.bus.client import Bus, WrongLast
from shared.errors import BusUnavailable, Fenced, LogFull

_BACKOFF_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Chain:
    """One subject, one writer at a time. ``tail`` is the stream sequence of the last message (0 = none)."""

    def __init__(self, bus: Bus, stream: str, subject: str, tail: int = 0) -> None:
        self._bus = bus
        self._stream = stream
        self.subject = subject
        self.tail = tail

    async def append(
        self,
        payload: bytes,
        *,
        headers: dict[str, str] | None = None,
        on_full: Callable[[], None] | None = None,
    ) -> int:
        """Append; return the stream sequence. Retries until it is known to be in or out.

        A tail with equal bytes, found on a conflict, is this very message: its ack was lost.
        ``on_full`` is called each time the stream refuses for lack of space.

        Raises:
            Fenced: somebody else appended after ``tail``.
        """
        for attempt in _forever():
            try:
                ack = await self._bus.publish(self.subject, payload, expect_last=self.tail, headers=headers)
            except WrongLast:
                if (found := await self._settle(payload)) is not None:
                    return found
            except LogFull:
                if on_full is not None:
                    on_full()
            except BusUnavailable:
                pass  # says nothing about the chain: the same message again
            else:
                self.tail = ack.seq
                return ack.seq
            await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
        raise AssertionError("unreachable")

    async def _settle(self, mine: bytes) -> int | None:
        """After a refusal: the sequence if the tail is mine, None to try again, Fenced otherwise."""
        try:
            # From the leader, never a direct get: a replica may show an older tail.
            tail = await self._bus.last(self._stream, self.subject)
            if tail is None:
                if self.tail and self.tail < await self._bus.first_seq(self._stream):
                    self.tail = 0  # the predecessor has expired: the subject is empty
                    return None
                if self.tail:
                    raise Fenced("the chain was deleted")
                return None
        except BusUnavailable:
            return None
        if tail.data == mine:
            self.tail = tail.seq
            return tail.seq
        if tail.seq == self.tail:
            return None
        raise Fenced("another writer has appended", tail_seq=tail.seq, tail=tail.data)


def _forever() -> "range":
    return range(1 << 62)

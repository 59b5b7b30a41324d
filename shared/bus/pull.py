"""Competing consumers: pull with credit, so that a worker never holds what it cannot start.

A ``Puller`` keeps at most ``credit`` requests outstanding at one durable consumer. What arrives is put into
``ready``; whoever owns the puller takes it from there.
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from shared.bus.client import ApiError, Bus, Msg, status_of
from shared.errors import BusUnavailable

logger = logging.getLogger(__name__)

_EXPIRES_S = 2.0
_LATE_S = 1.0
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One message handed to this worker, to be settled by exactly one of ack, nak, term."""

    subject: str
    data: bytes
    seq: int
    attempt: int
    headers: dict[str, str] | None
    _reply: str
    _bus: Bus

    async def ack(self) -> None:
        await self._settle(b"+ACK")

    async def nak(self, delay_s: float = 0) -> None:
        """Give it back, to be delivered again after ``delay_s``."""
        await self._settle(b"-NAK" + (orjson.dumps({"delay": int(delay_s * _NS)}) if delay_s else b""))

    async def working(self) -> None:
        """Tell JetStream that the work goes on: the redelivery timer starts anew."""
        await self._settle(b"+WPI")

    async def _settle(self, word: bytes) -> None:
        try:
            await self._bus.fire(self._reply, word)
        except BusUnavailable:
            pass  # unsettled, so it comes again; every step after a redelivery is safe to repeat


class Puller:
    """Outstanding requests at one durable consumer, and what they brought."""

    def __init__(self, bus: Bus, stream: str, consumer: str, on_ready: Callable[[], None]) -> None:
        self._bus = bus
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = f"_INBOX.pull.{secrets.token_hex(8)}"
        self._tokens = itertools.count()
        self._open: dict[str, tuple[int, float]] = {}
        self._on_ready = on_ready
        self.ready: deque[Delivery] = deque()

    async def start(self) -> None:
        """Subscribe; call once before anything else."""
        await self._bus.subscribe(f"{self._inbox}.*", self._on_message)
        await self._bus.flush()
        await self._bus.flush()
        self._bus.on_reconnect(self._forget)

    def _forget(self) -> None:
        """Requests made over a connection that is gone will not be answered."""
        self._open.clear()

    def outstanding(self) -> int:
        """Messages that may still arrive for requests already made."""
        now = time.monotonic()
        for token in [token for token, (_, deadline) in self._open.items() if deadline < now]:
            del self._open[token]
        return sum(left for left, _ in self._open.values())

    async def want(self, credit: int) -> None:
        """Ask for as many messages as are missing to ``credit`` (outstanding and ready together)."""
        missing = credit - self.outstanding() - len(self.ready)
        if missing > 0:
            await self._ask(missing)

    async def _ask(self, batch: int) -> None:
        token = str(next(self._tokens))
        deadline = time.monotonic() + _EXPIRES_S + _LATE_S
        self._open[token] = (batch, deadline)
        body = orjson.dumps({"batch": batch, "expires": int(_EXPIRES_S * _NS)})
        try:
            await self._bus.fire(self._subject, body, reply=f"{self._inbox}.{token}")
        except BusUnavailable:
            self._open.pop(token, None)

    async def _on_message(self, msg: Msg) -> None:
        status = status_of(msg)
        if status == "100":
            return
        if status is None:
            self._take(msg)
        else:
            # A status comes under the name of its request; a message comes under its own.
            self._open.pop(msg.subject.rpartition(".")[2], None)
        self._on_ready()

    def _take(self, msg: Msg) -> None:
        for token, (left, deadline) in self._open.items():  # requests are served in their order
            if left > 1:
                self._open[token] = (left - 1, deadline)
            else:
                del self._open[token]
            break
        # $JS.ACK.<stream>.<consumer>.<attempt>.<stream seq>.<consumer seq>.<time>.<pending>
        tokens = msg.reply.rsplit(".", 5)
        self.ready.append(
            Delivery(
                msg.subject, msg.data, int(tokens[-4]), int(tokens[-5]), msg.headers, msg.reply, self._bus
            )
        )


async def declare_consumer(
    bus: Bus,
    stream: str,
    name: str,
    subjects: Sequence[str],
    *,
    ack_wait_s: float,
    tries: int = -1,
    replicas: int = 1,
) -> None:
    """Create a durable pull consumer, or bring one with an older declaration up to date.

    ``tries`` -1: until it is acknowledged. A message that had its last try would be gone for good, so only what
    may be lost is given a number.
    """
    config: dict[str, Any] = {
        "durable_name": name,
        "name": name,
        "filter_subjects": list(subjects),
        "deliver_policy": "all",
        "max_deliver": tries,
        "num_replicas": replicas,
        "max_waiting": 4096,
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_s * _NS),
        # More than all workers' slots together: below that, a fetch holds messages until its time-out.
        "max_ack_pending": 20_000,
    }
    for attempt in range(30):
        try:
            await bus.api(
                f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config, "action": ""}
            )
        except (BusUnavailable, ApiError) as error:
            if attempt == 29:
                raise
            logger.info("consumer not declared yet", extra={"consumer": name, "error": str(error)})
            await asyncio.sleep(min(0.1 * 2**attempt, 1.0))
        else:
            return

"""An ordered reader of a stream without acks: a push consumer that is made anew whenever it falters.

It calls ``on_message`` for every stored message of its subjects from ``start`` on, in stream order, each
once. A missed heartbeat, a gap in the consumer's numbers or a lost server makes it start again after the
last message that it delivered.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from shared.bus.client import ApiError, Bus, Msg, Stored, status_of
from shared.errors import BusUnavailable
from shared.waiting import happens

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 0.5
_PATIENCE_S = 3 * _HEARTBEAT_S
_NS = 1_000_000_000

OnMessage = Callable[[Stored], None]
Room = Callable[[], Awaitable[None]]


class Tail:
    """Reads ``subjects`` of ``stream`` from sequence ``start`` while ``run`` is running."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        subjects: Sequence[str],
        start: int,
        on_message: OnMessage,
        *,
        room: Room | None = None,
        last_per_subject: bool = False,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._subjects = list(subjects)
        self._on_message = on_message
        self._room = room
        self._last_per_subject = last_per_subject
        self.position = start - 1
        """Sequence of the last message delivered (or skipped over)."""
        self.caught_up = asyncio.Event()
        """Set once everything that was stored when ``run`` began has been delivered."""
        self.restarts = 0
        self._generation = 0
        self._expected = 1
        self._broken = asyncio.Event()
        self._heard = 0.0
        self._name = ""

    async def run(self) -> None:
        """Read until cancelled."""
        unhook = self._bus.on_reconnect(self._broken.set)
        delay = 0.05
        try:
            while True:
                self._broken.clear()
                began = time.monotonic()
                try:
                    await self._read()
                except (BusUnavailable, ApiError) as error:
                    logger.info("reader could not start", extra={"stream": self._stream, "error": str(error)})
                self.restarts += 1
                # Without a pause a consumer that dies at once would be made 4,000 times a second.
                lived = time.monotonic() - began
                delay = 0.05 if lived > 5 else min(delay * 2, 1.0)
                await asyncio.sleep(delay)
        finally:
            unhook()

    async def advance(self) -> None:
        """Move ``position`` up over messages of other subjects, so that a successor need not read them.

        Raises BusUnavailable.
        """
        if not self._name:
            return
        try:
            last = int((await self._bus.stream_state(self._stream))["state"]["last_seq"])
            info = await self._bus.api(f"CONSUMER.INFO.{self._stream}.{self._name}", {})
        except ApiError:
            return  # it is being made anew
        # The stream's end was read first: whatever matched up to there has been delivered.
        if info["num_pending"] == 0 and self.position >= info["delivered"]["stream_seq"]:
            self.position = max(self.position, last)

    async def _read(self) -> None:
        self._generation += 1
        self._expected = 1
        generation = self._generation
        inbox = f"_INBOX.tail.{secrets.token_hex(8)}"

        async def handle(msg: Msg) -> None:
            if generation == self._generation:
                await self._handle(msg)

        subscription = await self._bus.subscribe(inbox, handle)
        name = f"tail-{secrets.token_hex(6)}"
        try:
            await self._bus.flush()
            made = await self._bus.api(f"CONSUMER.CREATE.{self._stream}.{name}", self._config(name, inbox))
            self._name = name
            if made.get("num_pending", 0) == 0:
                self.caught_up.set()
            await self._watch()
        finally:
            self._name = ""
            self._generation += 1
            await self._bus.unsubscribe(subscription)
            try:
                await self._bus.api(f"CONSUMER.DELETE.{self._stream}.{name}", {}, timeout=0.5)
            except (BusUnavailable, ApiError):
                pass  # it goes by itself after its inactive threshold

    async def _watch(self) -> None:
        """Return once the consumer is known to be broken or has been silent for too long."""
        self._heard = time.monotonic()
        while not self._broken.is_set():
            patience = self._heard + _PATIENCE_S - time.monotonic()
            if patience <= 0:
                logger.info("reader missed heartbeats", extra={"stream": self._stream})
                return
            await happens(self._broken, within_s=patience)

    def _config(self, name: str, inbox: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": name,
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": -1,
            "filter_subjects": self._subjects,
            "flow_control": True,
            "idle_heartbeat": int(_HEARTBEAT_S * _NS),
            "inactive_threshold": 10 * _NS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        if self._last_per_subject and self.position <= 0:
            config["deliver_policy"] = "last_per_subject"
        else:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": max(self.position + 1, 1)}
        return {"stream_name": self._stream, "config": config}

    async def _handle(self, msg: Msg) -> None:
        self._heard = time.monotonic()
        if (status := status_of(msg)) is not None:
            await self._control(status, msg)
            return
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>, with two more
        # tokens in front where the account has a domain.
        tokens = msg.reply.rsplit(".", 5)
        stream_seq, consumer_seq, pending = int(tokens[-4]), int(tokens[-3]), int(tokens[-1])
        if consumer_seq != self._expected:
            self._broken.set()
            self._generation += 1
            return
        self._expected += 1
        if stream_seq > self.position:
            self.position = stream_seq
            self._on_message(Stored(msg.subject, stream_seq, msg.data, msg.headers))
        if pending == 0:
            self.caught_up.set()

    async def _control(self, status: str, msg: Msg) -> None:
        if status != "100":
            self._broken.set()
            return
        stalled = (msg.headers or {}).get("Nats-Consumer-Stalled", "")
        if msg.reply or stalled:
            # Flow control: the server sends no more until this is answered. That is our back-pressure.
            if self._room is not None:
                await self._room()
                self._heard = time.monotonic()
            await self._bus.fire(msg.reply or stalled, b"")
            return
        last = (msg.headers or {}).get("Nats-Last-Consumer")
        if last is not None and int(last) + 1 != self._expected:
            self._broken.set()


async def read_all(
    bus: Bus, stream: str, subjects: Sequence[str], start: int = 1, *, last_per_subject: bool = False
) -> list[Stored]:
    """Everything stored now that matches ``subjects`` from ``start`` on, in stream order."""
    found: list[Stored] = []
    tail = Tail(bus, stream, subjects, start, found.append, last_per_subject=last_per_subject)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(tail.run())
        await tail.caught_up.wait()
        reading.cancel()
    return found

"""A connection to NATS: acknowledged publishes, reads by sequence and by subject, raw API requests.

The rule: whatever the broker answers becomes a value or one of ``shared.errors``; callers never see an
exception of the client library.
"""

import asyncio
import base64
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import nats
import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared.errors import AuricleError, BusUnavailable, LogFull

logger = logging.getLogger(__name__)

__all__ = ["Ack", "ApiError", "Bus", "Msg", "Stored", "WrongLast", "status_of"]

REQUEST_TIMEOUT_S = 2.0
_BATCH = 256

# JetStream error codes (server/errors.json of nats-server) by what to do about them.
WRONG_LAST = 10071
_STREAM_FULL = {10077, 10047, 10023}
_NOT_FOUND = {10037, 10059, 10014}
_EXISTS = {10058, 10148}


class WrongLast(AuricleError):
    """The chain's tail is not what the publisher expected."""


class ApiError(AuricleError):
    """JetStream refused a request for a reason that retrying does not cure."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code


@dataclass(frozen=True, slots=True)
class Ack:
    seq: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream holds it."""

    subject: str
    seq: int
    data: bytes
    headers: dict[str, str] | None = None


Handler = Callable[[Msg], Awaitable[None]]


class Bus:
    """One connection per process; build it with ``await Bus.connect(url)``."""

    def __init__(self, client: Client) -> None:
        self._nc = client
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._tokens = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._loop = asyncio.get_running_loop()
        self.reconnects = 0
        self._closing = False
        self._on_reconnect: list[Callable[[], None]] = []

    @classmethod
    async def connect(cls, url: str, *, name: str, patient: bool = True) -> Self:
        """Connect. ``patient``: keep trying while the server is away, also at the start.

        Raises BusUnavailable when not patient and nobody answers.
        """
        bus: Self

        async def on_error(error: Exception) -> None:
            logger.debug("nats", extra={"error": repr(error)})

        async def on_reconnect() -> None:
            bus.reconnects += 1
            logger.info("nats reconnected")
            for callback in list(bus._on_reconnect):
                callback()

        async def on_disconnect() -> None:
            if not bus._closing:
                logger.warning("nats disconnected")

        client = Client()
        bus = cls(client)
        while True:
            try:
                await client.connect(
                    url.split(","),
                    name=name,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1 if patient else 1,
                    reconnect_time_wait=0.1,  # type: ignore[arg-type]  # its hint says int
                    connect_timeout=2,
                    ping_interval=2,
                    max_outstanding_pings=2,
                    pending_size=16 << 20,
                    error_cb=on_error,
                    disconnected_cb=on_disconnect,
                    reconnected_cb=on_reconnect,
                )
                break
            except (OSError, nats.errors.Error) as error:
                if not patient:
                    raise BusUnavailable(f"no NATS at {url}") from error
                await asyncio.sleep(0.2)
        await bus._start()
        return bus

    async def _start(self) -> None:
        await self._nc.subscribe(f"{self._inbox}.*", cb=self._on_reply)
        # One flush is no barrier after subscribe(); two are (PERFORMANCE: 6 of 60 against 0 of 60).
        await self._nc.flush()
        await self._nc.flush()

    async def close(self) -> None:
        """Send what is pending and disconnect."""
        self._closing = True
        try:
            async with asyncio.timeout(2):
                if self._nc.is_connected:
                    await self._nc.flush()
                await self._nc.close()
        except (TimeoutError, nats.errors.Error, OSError):
            pass  # the process is ending; whoever waits for an answer sees its own time-out

    @property
    def connected(self) -> bool:
        return bool(self._nc.is_connected)

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after each reconnect; returns a function that takes it back."""
        self._on_reconnect.append(callback)
        return lambda: self._on_reconnect.remove(callback)

    # --- raw -------------------------------------------------------------------------------------------

    async def _on_reply(self, msg: Msg) -> None:
        waiting = self._waiting.pop(msg.subject.rpartition(".")[2], None)
        if waiting is not None and not waiting.done():
            waiting.set_result(msg)

    async def request(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: dict[str, str] | None = None,
        timeout: float = REQUEST_TIMEOUT_S,
    ) -> Msg:
        """One request, one answer. Raises BusUnavailable when none comes."""
        token = str(next(self._tokens))
        answer: asyncio.Future[Msg] = self._loop.create_future()
        self._waiting[token] = answer
        # A timer of our own: asyncio.timeout() asks for the running loop and task several times, and before
        # Python 3.12 each of these is a system call.
        timer = self._loop.call_later(timeout, _give_up, answer)
        try:
            await self._nc.publish(subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
            msg = await answer
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise BusUnavailable(f"no answer on {subject.partition('.')[0]}: {error!r}") from error
        finally:
            timer.cancel()
            self._waiting.pop(token, None)
        if status_of(msg) == "503":
            raise BusUnavailable("no responders")
        return msg

    async def request_many(
        self, subject: str, payload: bytes, *, timeout: float = REQUEST_TIMEOUT_S
    ) -> list[Msg]:
        """One request, answers until the end-of-batch marker (status 204)."""
        answers: list[Msg] = []
        done = asyncio.Event()

        async def collect(msg: Msg) -> None:
            status = status_of(msg)
            if status is None:
                answers.append(msg)
            else:
                if status in ("503", "408"):
                    answers.append(msg)
                done.set()

        inbox = f"{self._inbox}m.{next(self._tokens)}"
        subscription = await self.subscribe(inbox, collect)
        try:
            async with asyncio.timeout(timeout):
                await self._nc.publish(subject, payload, reply=inbox)
                await done.wait()
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise BusUnavailable(f"no answer: {error!r}") from error
        finally:
            await self.unsubscribe(subscription)
        if answers and status_of(answers[-1]) in ("503", "408"):
            raise BusUnavailable("stream has no leader")
        return answers

    async def subscribe(self, subject: str, handler: Handler, *, limit_bytes: int = 64 << 20) -> Subscription:
        try:
            return await self._nc.subscribe(
                subject, cb=handler, pending_bytes_limit=limit_bytes, pending_msgs_limit=1 << 20
            )
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailable(repr(error)) from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        try:
            await subscription.unsubscribe()
        except (nats.errors.Error, OSError):
            pass  # the connection is away, and the interest with it

    async def fire(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Publish without waiting for anything."""
        try:
            await self._nc.publish(subject, payload, reply=reply)
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailable(repr(error)) from error

    async def flush(self) -> None:
        try:
            await self._nc.flush(timeout=int(REQUEST_TIMEOUT_S))
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailable(repr(error)) from error

    # --- JetStream -------------------------------------------------------------------------------------

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        expect_last: int | None = None,
        msg_id: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = REQUEST_TIMEOUT_S,
    ) -> Ack:
        """Publish into a stream and wait for its acknowledgement.

        Raises:
            WrongLast: ``expect_last`` is not the subject's last sequence.
            LogFull: the stream discards new messages now.
            BusUnavailable: no acknowledgement; nothing is known about the message.
        """
        sent = dict(headers) if headers else {}
        if expect_last is not None:
            sent["Nats-Expected-Last-Subject-Sequence"] = str(expect_last)
        if msg_id is not None:
            sent["Nats-Msg-Id"] = msg_id
        msg = await self.request(subject, payload, headers=sent or None, timeout=timeout)
        answer = orjson.loads(msg.data)
        if "error" in answer:
            raise _refusal(answer["error"])
        return Ack(answer["seq"], answer.get("duplicate", False))

    async def api(self, subject: str, body: dict[str, Any], *, timeout: float = 5.0) -> dict[str, Any]:
        """A JetStream API request. Raises ApiError, LogFull or BusUnavailable."""
        msg = await self.request(f"$JS.API.{subject}", orjson.dumps(body), timeout=timeout)
        answer: dict[str, Any] = orjson.loads(msg.data)
        if "error" in answer:
            raise _refusal(answer["error"])
        return answer

    async def direct_get_many(self, stream: str, sequences: Iterable[int]) -> dict[int, Stored]:
        """Several messages by sequence, asked for in parallel; those that the replica has not are left out."""
        subject = f"$JS.API.DIRECT.GET.{stream}"
        answers: dict[str, asyncio.Future[Msg]] = {}
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                for seq in sequences:
                    token = str(next(self._tokens))
                    answers[token] = self._waiting[token] = self._loop.create_future()
                    await self._nc.publish(subject, b'{"seq":%d}' % seq, reply=f"{self._inbox}.{token}")
                found = [await answer for answer in answers.values()]
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise BusUnavailable(f"no answer from {stream}: {error!r}") from error
        finally:
            for token in answers:
                self._waiting.pop(token, None)
        return {stored.seq: stored for stored in (_stored(msg) for msg in found if status_of(msg) is None)}

    async def get(self, stream: str, seq: int) -> Stored | None:
        """A message by sequence from the leader, who knows whether it exists."""
        return await self._leader_get(stream, {"seq": seq})

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject, from the leader."""
        return await self._leader_get(stream, {"last_by_subj": subject})

    async def next(self, stream: str, subject: str, seq: int) -> Stored | None:
        """The first message of a subject at or after ``seq``, from the leader."""
        return await self._leader_get(stream, {"seq": seq, "next_by_subj": subject})

    async def _leader_get(self, stream: str, body: dict[str, Any]) -> Stored | None:
        try:
            message = (await self.api(f"STREAM.MSG.GET.{stream}", body))["message"]
        except ApiError as error:
            if error.code in _NOT_FOUND:
                return None
            raise
        data = base64.b64decode(message.get("data", ""))
        return Stored(message["subject"], message["seq"], data)

    async def read(self, stream: str, subject: str, seq: int, until: int) -> list[Stored]:
        """Messages of ``subject`` with sequences from ``seq`` to ``until`` inclusive, in order.

        ``until`` comes from the leader (``last``); a replica that lags is asked again.
        """
        found: list[Stored] = []
        for attempt in range(20):
            while seq <= until:
                body = orjson.dumps({"seq": max(seq, 1), "next_by_subj": subject, "batch": _BATCH})
                answers = await self.request_many(f"$JS.API.DIRECT.GET.{stream}", body)
                batch = [stored for stored in map(_stored, answers) if stored.seq <= until]
                if not batch:
                    break
                found += batch
                seq = batch[-1].seq + 1
            left = await self.next(stream, subject, seq) if seq <= until else None
            if left is None or left.seq > until:
                return found
            await asyncio.sleep(0.01 * (attempt + 1))  # the replica that answered is behind the leader
        raise BusUnavailable(f"{stream} replicas lag")

    async def last_of_each(self, stream: str, subjects: Iterable[str]) -> list[Stored]:
        """The last message of every subject that matches (at most 1024 of them)."""
        body = orjson.dumps({"multi_last": list(subjects)})
        return [_stored(msg) for msg in await self.request_many(f"$JS.API.DIRECT.GET.{stream}", body)]

    async def first_seq(self, stream: str) -> int:
        """The oldest sequence that the stream still holds."""
        state = (await self.api(f"STREAM.INFO.{stream}", {}))["state"]
        return int(state["first_seq"])

    async def stream_state(self, stream: str) -> dict[str, Any]:
        """State and configuration as JetStream reports them."""
        return await self.api(f"STREAM.INFO.{stream}", {})


def _give_up(answer: "asyncio.Future[Msg]") -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


def status_of(msg: Msg) -> str | None:
    """The inline status of a control message; None for a real one."""
    return msg.headers.get("Status") if msg.headers else None


def _stored(msg: Msg) -> Stored:
    headers = msg.headers or {}
    return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), msg.data, headers)


def _refusal(error: dict[str, Any]) -> AuricleError:
    code = error.get("err_code", 0)
    description = error.get("description", "refused")
    if code == WRONG_LAST:
        return WrongLast(description)
    if code in _STREAM_FULL or "maximum bytes" in description:
        return LogFull(description)
    # 10164: another publish of this subject is in flight; 10158: the same at the cluster's proposal;
    # 10008 and 503s: no leader. None of them says anything about who owns the chain.
    if code in (10164, 10158, 10008, 10009, 10076) or error.get("code") == 503:
        return BusUnavailable(f"{description} ({code})")
    return ApiError(code, description)

"""Redis: the facts of live sessions, and who is told about them. The only module that imports redis.

Redis holds no truth. Every call is best effort: it ends within its time-out or raises ``TransientError``,
may be repeated, and whatever is lost is made good by a reconcile from JetStream.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from types import TracebackType
from typing import Any, Self

import msgpack
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

from shared.errors import TransientError
from shared.messages import Abandoned, AnyVadEvent, Dropped, Outcome, Partial, pack

logger = logging.getLogger(__name__)

ORPHANS = "w:orphans"
"""Where a fact is announced whose session has no listener registered: Redis was wiped, or nobody is there."""

TIMEOUT_S = 0.8
_QUIET_S = 2.0
"""A subscription that is silent for so long is asked whether it still lives, and given as long to answer."""
_BACKOFF_S = (0.05, 1.0)
_AT_ONCE = 64
"""Commands of one round trip."""
_OPS_AT_ONCE = 128
"""Operations of one script call: the server serves nobody else meanwhile."""

_SCRIPT = resources.files("shared").joinpath("commit.lua").read_bytes()
_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()

Op = tuple[str | bytes | int, ...]
"""One operation of ``commit.lua``."""


def event_op(event: AnyVadEvent, body: bytes) -> Op:
    closes = event.k if isinstance(event, Dropped | Abandoned) else -1
    return "v", event.ev, closes, body


def outcome_op(outcome: Outcome, seq: int, body: bytes) -> Op:
    return "o", outcome.k, outcome.slot, seq, body


def partial_op(partial: Partial, body: bytes | None = None) -> Op:
    return "p", partial.k, partial.end, pack(partial) if body is None else body


def register_op(epoch: int, channel: str) -> Op:
    return "w", epoch, channel


def trim_op(ev: int, k: int) -> Op:
    return "t", ev, k


@dataclass(frozen=True, slots=True)
class Wake:
    """Something happened in a session that is registered on the channel."""

    session_id: str
    epoch: int
    """The epoch that is registered now: a higher one than one's own means superseded."""
    facts: tuple[tuple[str, bytes], ...]
    """Fields of the session's hash that changed; none = read what is missing."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A fact came in of a session for which nobody is registered: who holds it registers and reconciles."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Listening:
    """The subscription stands (again). What was announced before is lost: reconcile every session."""


class _Batch:
    """Commands that share a round trip, and what became of them."""

    def __init__(self) -> None:
        self.commands: list[Op] = []
        self.replies: list[Any] | None = None


class SessionView:
    """Facts in Redis. Calls that run at the same time share round trips."""

    def __init__(self, redis: Redis, *, max_age_s: int, timeout_s: float) -> None:
        self._redis = redis
        self._max_age_s = max_age_s
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._open = _Batch()

    @classmethod
    def connect(cls, url: str, *, max_age_s: int = 86_400, timeout_s: float = TIMEOUT_S) -> "SessionView":
        """Nothing is sent yet. ``max_age_s``: how long the facts of a session outlive their last change."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=8,
            timeout=timeout_s,
            # redis-py's own time-out costs a task per command and is retried in silence; ours is in _call.
            socket_timeout=None,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),  # a subscription that came back by itself would not say so
            protocol=2,
            driver_info=None,
        )
        return cls(Redis(connection_pool=pool), max_age_s=max_age_s, timeout_s=timeout_s)

    async def aclose(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- writing ----------------------------------------------------------------------------------------

    async def commit(self, sid: str, ops: Iterable[Op]) -> int:
        """Apply operations; how many changed something. Not atomic: a join needs no atomicity."""
        waiting, changed = list(ops), 0
        for at in range(0, len(waiting), _OPS_AT_ONCE):
            arguments = [argument for op in waiting[at : at + _OPS_AT_ONCE] for argument in op]
            changed += int(await self._call("EVALSHA", _SHA, 1, _key(sid), self._max_age_s, *arguments))
        return changed

    async def commit_event(self, sid: str, event: AnyVadEvent, body: bytes) -> bool:
        return bool(await self.commit(sid, [event_op(event, body)]))

    async def commit_outcome(self, sid: str, outcome: Outcome, seq: int, body: bytes) -> bool:
        """``seq``: the stream sequence under which RESULTS holds it."""
        return bool(await self.commit(sid, [outcome_op(outcome, seq, body)]))

    async def commit_partial(self, sid: str, partial: Partial, body: bytes | None = None) -> bool:
        return bool(await self.commit(sid, [partial_op(partial, body)]))

    async def register(self, sid: str, epoch: int, channel: str) -> bool:
        """Have wakes of ``sid`` sent to ``channel``. False: a higher epoch is registered."""
        return bool(await self.commit(sid, [register_op(epoch, channel)]))

    async def trim(self, sid: str, ev: int, k: int) -> bool:
        """Forget events below ``ev`` and outcomes below ``k``."""
        return bool(await self.commit(sid, [trim_op(ev, k)]))

    # --- reading ----------------------------------------------------------------------------------------

    async def read(self, sid: str, keys: Sequence[str]) -> dict[str, bytes]:
        """The fields of the session's hash that are there."""
        if not keys:
            return {}
        values = await self._call("HMGET", _key(sid), *keys)
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    async def alive(self) -> bool:
        try:
            return bool(await self._call("PING"))
        except TransientError:
            return False

    async def run_id(self) -> str:
        """Changes when the server restarted, or another one answers: facts may have gone or gone back."""
        info, replication = await asyncio.gather(
            self._call("INFO", "server"), self._call("INFO", "replication")
        )
        return f"{info['run_id']}/{replication['master_replid']}"

    async def listen(self, channels: Sequence[str]) -> AsyncIterator[Wake | Orphan | Listening]:
        """What is announced on the channels, for ever: reconnects by itself."""
        pause = _BACKOFF_S[0]
        while True:
            subscription = self._redis.pubsub()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await _subscribe(subscription, channels)
                yield Listening()
                pause = _BACKOFF_S[0]
                async for wake in _wakes(subscription):
                    yield wake
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("wake-ups interrupted", extra={"error": str(error)})
            finally:
                await subscription.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(pause)
            pause = min(2 * pause, _BACKOFF_S[1])

    # --- one round trip for all who wait ----------------------------------------------------------------

    async def _call(self, *command: str | bytes | int) -> Any:
        """Send a command along with those of all others who wait for the connection.

        Whoever gets the turn sends the batch for all of it. Is that one cancelled, the next sends it again:
        every command may be repeated.
        """
        if len(self._open.commands) == _AT_ONCE or self._open.replies is not None:
            self._open = _Batch()
        batch, place = self._open, len(self._open.commands)
        batch.commands.append(command)
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                if batch.replies is None:
                    await self._send(batch)
        except TimeoutError as error:
            raise TransientError("redis: no answer in time") from error
        reply = batch.replies[place] if batch.replies is not None else None
        if isinstance(reply, Exception):
            raise TransientError(f"redis: {reply}") from reply
        return reply

    async def _send(self, batch: _Batch) -> None:
        if batch is self._open:
            self._open = _Batch()
        try:
            replies = await self._round_trip(batch.commands)
            if any(isinstance(reply, NoScriptError) for reply in replies):  # restarted, or flushed
                _, *replies = await self._round_trip([("SCRIPT LOAD", _SCRIPT), *batch.commands])
            if any(isinstance(reply, ReadOnlyError) for reply in replies):  # demoted: find the new primary
                await self._redis.connection_pool.disconnect()
            batch.replies = replies
        except (RedisError, OSError) as error:
            batch.replies = [error] * len(batch.commands)

    async def _round_trip(self, commands: list[Op]) -> list[Any]:
        try:
            return await self._exchange(commands)
        except RedisConnectionError:  # perhaps only an old connection to a server that was restarted
            return await self._exchange(commands)

    async def _exchange(self, commands: list[Op]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return list(await pipe.execute(raise_on_error=False))


def _key(sid: str) -> str:
    """One key per session, with a hash tag: a script may touch one slot of a cluster only."""
    return f"f:{{{sid}}}"


async def _subscribe(subscription: PubSub, channels: Sequence[str]) -> None:
    await subscription.subscribe(*channels)
    for _ in channels:  # the confirmations: from here on nothing is missed
        await subscription.get_message(timeout=None)


async def _wakes(subscription: PubSub) -> AsyncIterator[Wake | Orphan]:
    asked = False
    while True:
        message = await subscription.get_message(timeout=_QUIET_S)
        if message is not None:
            asked = False
            if message["type"] == "message" and (wake := _announced(message["channel"], message["data"])):
                yield wake
        elif asked:
            raise TimeoutError("the subscription does not answer")
        else:
            asked = True
            await subscription.ping()


def _announced(channel: bytes, data: bytes) -> Wake | Orphan | None:
    try:
        if channel == ORPHANS.encode():
            return Orphan(data.decode())
        sid, epoch, flat, *_ = msgpack.unpackb(data, raw=True)
        fields = [field.decode() for field in flat[::2]]
        return Wake(sid.decode(), int(epoch), tuple(zip(fields, flat[1::2], strict=True)))
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
        # Anybody may publish: it is only a hint, so it may be wrong, and must not stop the others.
        logger.warning("wake-up not understood", extra={"error": str(error)})
        return None

"""One client: frames in, records out; facts in, frames out. One task group, no decisions.

The dialect decides what a frame means, the VAD worker what the audio means, the merge in which order it is
told. This carries bytes between them.
"""

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass
from typing import Protocol

import msgspec

from services.ingress.dialects.base import (
    AudioIn,
    ClearIn,
    Close,
    CommitIn,
    Configure,
    Dialect,
    FinishIn,
    Reply,
    Request,
    SessionFinished,
    Trouble,
)
from services.ingress.follower import Follower
from services.ingress.hub import Hub
from services.ingress.intake import Undecodable, converter_for
from services.ingress.log import SessionLog, ended_by
from shared import subjects
from shared.bus import Bucket, Bus
from shared.errors import BadMessage, BusUnavailable, Fenced
from shared.messages import (
    Attached,
    AudioFormat,
    Clear,
    Commit,
    Finished,
    SessionSettings,
    SettingsChanged,
)
from shared.waiting import happens

logger = logging.getLogger(__name__)

SLOW_CLIENT_S = 30.0
FULL_S = 10.0
_AFTER_FINISHED_S = 10.0
_CLOSE_HANDSHAKE_S = 3.0


ENDED_BY: dict[str, Trouble] = {"idle": "idle", "admin": "draining"}
"""How a session ended that its client did not end; after ``session.finished`` a dialect just says goodbye."""


class Disconnected(Exception):
    """The client is gone."""


class Peer(Protocol):
    """The client's end of a socket."""

    async def receive(self) -> str | bytes:
        """The next frame. Raises Disconnected."""

    async def send(self, frame: str) -> None:
        """Send; returns when the transport takes more. Raises Disconnected."""

    async def close(self, code: int, reason: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Services:
    """What every connection shares."""

    bus: Bus
    hub: Hub


class Connection:
    """Runs one session of one client until either is over."""

    def __init__(
        self,
        services: Services,
        peer: Peer,
        dialect: Dialect,
        log: SessionLog,
        follower: Follower,
        audio: AudioFormat,
    ) -> None:
        self._bus = services.bus
        self._hub = services.hub
        self._peer = peer
        self._dialect = dialect
        self._log = log
        self._follower = follower
        self._format = audio
        self._converter = converter_for(audio)
        self._written = asyncio.Event()
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Bring the session to its end now: what was accepted is recognised, then the socket closes."""
        self._draining.set()
        self._log.finish("admin")

    async def run(self) -> None:
        """Serve until the client has gone or been told to."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._write()),
                group.create_task(self._tell()),
                group.create_task(self._watch()),
            ]
            try:
                await self._listen()
            except Disconnected:
                pass
            await self._settle()
            for task in tasks:
                task.cancel()
        self._log.release()

    async def _settle(self) -> None:
        """The client has gone without finishing: say so in the log, and give that a moment."""
        self._log.finish("closed", discard=True)
        if not await happens(self._written, within_s=2):
            logger.info("end not written", extra={"session": self._log.sid})  # the idle timer ends it

    # --- client -> log -----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        for greeting in self._dialect.open():
            await self._peer.send(greeting)
        while True:
            frame = await self._peer.receive()
            for request in self._dialect.receive(frame):
                await self._obey(request)
            # No next read while too much waits for its acknowledgement: the client's own buffers fill up.
            await self._log.room()

    async def _obey(self, request: Request) -> None:
        match request:
            case AudioIn():
                await self._hear(request)
            case Reply():
                for frame in request.frames:
                    await self._peer.send(frame)
            case Configure():
                await self._configure(request)
            case CommitIn():
                self._append(self._converter.flush())
                event_id = request.event_id
                self._log.control(lambda common: Commit(**common, event_id=event_id))
            case ClearIn():
                self._converter.flush()
                clear_id = request.event_id
                self._log.control(lambda common: Clear(**common, event_id=clear_id))
            case FinishIn():
                self._append(self._converter.flush())
                self._log.finish("client")
            case Close():
                await self._close(request)
                raise Disconnected

    async def _hear(self, request: AudioIn) -> None:
        self._converter.skip(request.skipped)
        try:
            for at, pcm in enumerate(self._converter.pieces(request.data)):
                if at:  # an append of Opus may hold hours: others have their turn, and the log its pace
                    await asyncio.sleep(0)
                    await self._log.room()
                self._append(pcm)
        except Undecodable as error:
            for frame in self._dialect.invalid_audio(str(error), request.event_id):
                await self._peer.send(frame)

    def _append(self, pcm: bytes) -> None:
        self._log.audio(pcm, self._converter.consumed, self._converter.src_rate)

    async def _configure(self, request: Configure) -> None:
        if request.format != self._format:
            self._append(self._converter.flush())
            self._format = request.format
            self._converter = converter_for(request.format, self._converter.consumed)
        settings = await self._with_context(request.settings, request.context)
        event_id = request.event_id
        self._log.control(lambda common: SettingsChanged(**common, settings=settings, event_id=event_id))

    async def _with_context(self, settings: SessionSettings, context: str) -> SessionSettings:
        """A context is stored once under its hash; the log and the segments name it."""
        if not context:
            return settings
        digest = hashlib.sha256(context.encode()).hexdigest()[:32]
        try:
            await Bucket(self._bus, subjects.BLOBS).put(digest, context.encode())
        except BusUnavailable:
            return settings  # a hint only: the session goes on without it
        return msgspec.structs.replace(settings, context_hash=digest)

    async def _write(self) -> None:
        """Write the log to its end; if somebody else writes it, find out who."""
        try:
            await self._log.run()
        except Fenced:
            last = await ended_by(self._bus, self._log.sid)
            if isinstance(last, Attached):
                await self._fail("superseded")
            elif not isinstance(last, Finished):
                await self._fail("internal")
            # Finished by the VAD worker (idle, error): the merge tells the client.
        finally:
            self._log.release()
            self._written.set()

    # --- facts -> client -----------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Send whatever can be told, and wait for more. A client that does not read is not waited for."""
        try:
            while True:
                self._follower.changed.clear()
                for event in self._follower.events():
                    for frame in self._dialect.send(event):
                        await self._send(frame)
                    if isinstance(event, SessionFinished):
                        await self._end(event.reason)
                        return
                if self._follower.superseded:
                    await self._fail("superseded")
                    return
                await self._news()
        except Disconnected:
            pass  # the listener notices as well
        except BadMessage as error:
            # What the streams hold of this session makes no sense: its own client is told, nobody else suffers.
            logger.error("session not readable", extra={"session": self._log.sid, "error": str(error)})
            await self._fail("internal")

    async def _news(self) -> None:
        """Wait for facts, or until a draft that was held back may be told."""
        await happens(self._follower.changed, within_s=self._follower.draft_due_s())

    async def _send(self, frame: str) -> None:
        try:
            async with asyncio.timeout(SLOW_CLIENT_S):
                await self._peer.send(frame)
        except TimeoutError:
            await self._fail("slow_client")
            raise Disconnected from None

    async def _end(self, reason: str) -> None:
        """Everything is told: the client hangs up; one that does not is hung up on."""
        if reason == "client":
            # The client hangs up now; meanwhile the dialect still answers what it should not send any more.
            await happens(self._draining, within_s=_AFTER_FINISHED_S)
        await self._close(self._dialect.fail(ENDED_BY.get(reason, "internal")))

    async def _watch(self) -> None:
        """A stream that stays full is not waited for for ever."""
        while True:
            await asyncio.sleep(1.0)
            since = self._log.full_since
            if since is not None and time.monotonic() - since > FULL_S:
                await self._fail("storage_full")
                return

    async def _fail(self, trouble: Trouble) -> None:
        logger.info("connection ended", extra={"session": self._log.sid, "trouble": trouble})
        await self._close(self._dialect.fail(trouble))

    async def _close(self, close: Close) -> None:
        try:
            async with asyncio.timeout(_CLOSE_HANDSHAKE_S):
                for frame in close.frames:
                    await self._peer.send(frame)
                # Clients look at their socket every 100 ms; one that closes sooner looks refused to them.
                await asyncio.sleep(close.grace_ms / 1000)
                await self._peer.close(close.code, close.reason)
        except (Disconnected, TimeoutError):
            pass

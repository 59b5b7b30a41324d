"""From an upgrade request to a running session: key, limits, model, log, connection.

How somebody is turned away, before the upgrade or after it, is for the dialect to say.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from services.ingress.admission import Admission
from services.ingress.connection import Connection, Disconnected, Services
from services.ingress.dialects.base import Close, Denied, Dialect, DialectClass, Welcome
from services.ingress.dialects.registry import DEFAULT, load_dialect
from services.ingress.fleet import Fleet
from services.ingress.follower import Follower
from services.ingress.log import Budget, SessionLog
from services.ingress.models import Models
from shared.messages import SessionSettings
from shared.sessions import new_session_id, random_token
from shared.waiting import happens

logger = logging.getLogger(__name__)

_OPEN_S = 10.0
_KEY_PROTOCOL = "auricle-key."


class SocketPeer:
    """A Starlette WebSocket as a connection sees it."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str | bytes:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise Disconnected
        text = message.get("text")
        frame: str | bytes = text if text is not None else message.get("bytes") or b""
        return frame

    async def send(self, frame: str) -> None:
        if self._socket.application_state is not WebSocketState.CONNECTED:
            raise Disconnected
        try:
            await self._socket.send_text(frame)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise Disconnected from error

    async def close(self, code: int, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            try:
                await self._socket.close(code, reason)
            except (WebSocketDisconnect, RuntimeError, OSError):
                pass  # it has gone by itself


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What is the same for every session of this ingress."""

    name: str
    partitions: int
    defaults: SessionSettings
    models: Models


class Door:
    """Lets clients in."""

    def __init__(
        self, services: Services, admission: Admission, fleet: Fleet, deployment: Deployment, budget: Budget
    ) -> None:
        self._services = services
        self._admission = admission
        self._fleet = fleet
        self._deployment = deployment
        self._budget = budget
        self._connections: set[Connection] = set()
        self._emptied = asyncio.Event()

    async def enter(self, socket: WebSocket, dialect_name: str) -> None:
        """Serve one WebSocket from its upgrade to its end."""
        tenant = self._admission.tenant(key_of(socket.headers, socket.query_params))
        address = socket.client.host if socket.client else ""
        dialect = load_dialect(dialect_name)
        if tenant is None:
            await _turn_away(socket, dialect.refuse("key", request_id=_request_id("key")))
            return
        if self._admission.too_many(tenant, address):
            await _turn_away(socket, dialect.refuse("limit", request_id=_request_id("limit")))
            return
        self._admission.entered(tenant, address)
        try:
            await socket.accept(subprotocol=_subprotocol(socket.headers))
            await self._serve(socket, dialect_name, dialect, tenant)
        finally:
            self._admission.left(tenant, address)

    async def _serve(self, socket: WebSocket, dialect_name: str, kind: DialectClass, tenant: str) -> None:
        peer = SocketPeer(socket)
        model = socket.query_params.get("model") or kind.model
        pool = self._deployment.models.pool_of(model)
        if pool is None:
            await _turn_away(socket, kind.refuse("model", model=model))
            return
        welcome = self._welcome(kind, model, pool)
        dialect = kind(welcome)
        if (trouble := self._admission.trouble(pool)) is not None:
            logger.info("session refused", extra={"trouble": trouble, "pool": pool})
            await _refuse(peer, dialect.fail(trouble))
            return
        log = SessionLog(self._services.bus, welcome.session_id, self._deployment.name, self._budget)
        follower = Follower(welcome.session_id, log.ep)
        connection = Connection(self._services, peer, dialect, log, follower, kind.audio)
        await self._services.hub.follow(follower)
        self._connections.add(connection)
        try:
            opened = {
                "tenant": tenant,
                "dialect": dialect_name,
                "model": model,
                "pool": pool,
                "settings": welcome.settings,
                "format": kind.audio,
            }
            if await self._open(log, peer, dialect, opened):
                await connection.run()
        finally:
            self._services.hub.leave(follower)
            self._connections.discard(connection)
            if not self._connections:
                self._emptied.set()

    async def _open(
        self, log: SessionLog, peer: SocketPeer, dialect: Dialect, opened: dict[str, Any]
    ) -> bool:
        try:
            async with asyncio.timeout(_OPEN_S):
                await log.open(**opened)
        except TimeoutError:
            full = log.full_since is not None
            await _refuse(peer, dialect.fail("storage_full" if full else "overloaded"))
            return False
        return True

    def _welcome(self, kind: DialectClass, model: str, pool: str) -> Welcome:
        deployment = self._deployment
        partition = secrets.randbelow(deployment.partitions)
        traits = self._fleet.traits(pool)
        defaults = kind.defaults(deployment.defaults, model)
        longest_ms = min(defaults.max_segment_ms, int(traits.max_audio_s * 1000))
        return Welcome(
            session_id=new_session_id("live", partition),
            model=model,
            settings=msgspec.structs.replace(defaults, max_segment_ms=longest_ms),
            languages=traits.languages,
            takes_context=traits.takes_context,
            detects_language=traits.detects_language,
            serves=lambda name: deployment.models.pool_of(name) == pool,
        )

    @property
    def sessions(self) -> int:
        """Clients inside, whether their session has begun or not."""
        return self._admission.sessions

    async def drain(self, patience_s: float, flush_s: float) -> None:
        """Let no one in; give sessions a moment to end, then bring them to their end."""
        self._admission.draining = True
        if await self._wait_until_empty(patience_s):
            return
        for connection in list(self._connections):
            connection.drain()
        if not await self._wait_until_empty(flush_s):
            logger.warning("sessions cut off", extra={"count": len(self._connections)})

    async def _wait_until_empty(self, patience_s: float) -> bool:
        self._emptied.clear()
        if not self._connections:
            return True
        return await happens(self._emptied, within_s=patience_s)


def key_of(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The client's key: header (scheme in any case), query, or subprotocol where headers cannot be set."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    if query.get("api_key"):
        return query["api_key"]
    protocol = _subprotocol(headers)
    return protocol.removeprefix(_KEY_PROTOCOL) if protocol else None


def _subprotocol(headers: Mapping[str, str]) -> str | None:
    offered = (name.strip() for name in headers.get("sec-websocket-protocol", "").split(","))
    return next((name for name in offered if name.startswith(_KEY_PROTOCOL)), None)


def _request_id(why: str) -> str:
    """By which an operator finds a refusal that a user asks about."""
    request_id = random_token(21)
    logger.info("turned away", extra={"why": why, "request_id": request_id})
    return request_id


async def deny_unknown_path(socket: WebSocket) -> None:
    await _turn_away(socket, load_dialect(DEFAULT).refuse("path", request_id=_request_id("path")))


async def _turn_away(socket: WebSocket, refusal: Denied | Close) -> None:
    if isinstance(refusal, Denied):
        response = Response(refusal.body, refusal.status, media_type="application/json")
        await socket.send_denial_response(response)
        return
    if socket.application_state is WebSocketState.CONNECTING:
        await socket.accept(subprotocol=_subprotocol(socket.headers))
    await _refuse(SocketPeer(socket), refusal)


async def _refuse(peer: SocketPeer, close: Close) -> None:
    try:
        for frame in close.frames:
            await peer.send(frame)
        await asyncio.sleep(close.grace_ms / 1000)
        await peer.close(close.code, close.reason)
    except Disconnected:
        pass

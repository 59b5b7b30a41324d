"""From an upgrade request to a running session: key, limits, model, log, connection.

What can be refused before the upgrade is refused with an HTTP status; the rest is told in the client's dialect.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from services.ingress.admission import Admission
from services.ingress.connection import Connection, Disconnected, Services
from services.ingress.dialects.base import Close, Dialect, Welcome
from services.ingress.dialects.dashscope_events import refusal_body, unknown_model
from services.ingress.dialects.registry import load_dialect
from services.ingress.fleet import Fleet
from services.ingress.follower import Follower
from services.ingress.log import Budget, SessionLog
from services.ingress.models import DEFAULT_MODEL, Models
from shared.messages import AudioFormat, SessionSettings
from shared.sessions import new_session_id, random_token

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
        if tenant is None:
            await _deny(socket, 401)
            return
        if self._admission.too_many(tenant, address):
            await _deny(socket, 429)
            return
        self._admission.entered(tenant)
        try:
            await socket.accept(subprotocol=_subprotocol(socket.headers))
            await self._serve(socket, dialect_name, tenant)
        finally:
            self._admission.left(tenant)

    async def _serve(self, socket: WebSocket, dialect_name: str, tenant: str) -> None:
        peer = SocketPeer(socket)
        model = socket.query_params.get("model") or DEFAULT_MODEL
        pool = self._deployment.models.pool_of(model)
        if pool is None:
            await _refuse(peer, unknown_model(model))
            return
        welcome = self._welcome(model, pool)
        dialect = load_dialect(dialect_name)(welcome)
        if (trouble := self._admission.trouble(pool)) is not None:
            logger.info("session refused", extra={"trouble": trouble, "pool": pool})
            await _refuse(peer, dialect.fail(trouble))
            return
        log = SessionLog(self._services.bus, welcome.session_id, self._deployment.name, self._budget)
        follower = Follower(welcome.session_id, log.ep)
        connection = Connection(self._services, peer, dialect, log, follower, AudioFormat())
        await self._services.hub.follow(follower)
        self._connections.add(connection)
        try:
            if await self._open(log, peer, dialect, welcome, tenant, pool, dialect_name):
                await connection.run()
        finally:
            self._services.hub.leave(follower)
            self._connections.discard(connection)
            if not self._connections:
                self._emptied.set()

    async def _open(
        self,
        log: SessionLog,
        peer: SocketPeer,
        dialect: Dialect,
        welcome: Welcome,
        tenant: str,
        pool: str,
        dialect_name: str,
    ) -> bool:
        try:
            async with asyncio.timeout(_OPEN_S):
                await log.open(
                    tenant=tenant,
                    dialect=dialect_name,
                    model=welcome.model,
                    pool=pool,
                    settings=welcome.settings,
                )
        except TimeoutError:
            full = log.full_since is not None
            await _refuse(peer, dialect.fail("storage_full" if full else "overloaded"))
            return False
        return True

    def _welcome(self, model: str, pool: str) -> Welcome:
        deployment = self._deployment
        partition = int.from_bytes(random_token(3).encode(), "big") % deployment.partitions
        traits = self._fleet.traits(pool)
        longest_ms = min(deployment.defaults.max_segment_ms, int(traits.max_audio_s * 1000))
        return Welcome(
            session_id=new_session_id("live", partition),
            model=model,
            settings=msgspec.structs.replace(deployment.defaults, max_segment_ms=longest_ms),
            languages=traits.languages,
            takes_context=traits.takes_context,
            detects_language=traits.detects_language,
        )

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
        try:
            async with asyncio.timeout(patience_s):
                await self._emptied.wait()
        except TimeoutError:
            return False
        return True


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


async def _deny(socket: WebSocket, status: int) -> None:
    request_id = random_token(21)
    logger.info("upgrade refused", extra={"status": status, "request_id": request_id})
    body = refusal_body(status, request_id)
    await socket.send_denial_response(Response(body, status, media_type="application/json"))


async def deny_unknown_path(socket: WebSocket) -> None:
    await _deny(socket, 404)


async def _refuse(peer: SocketPeer, close: Close) -> None:
    try:
        for frame in close.frames:
            await peer.send(frame)
        await asyncio.sleep(close.grace_ms / 1000)
        await peer.close(close.code, close.reason)
    except Disconnected:
        pass

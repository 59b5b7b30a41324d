"""A client of the DashScope dialect: sends audio at its pace, hands every server event to a callback."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import orjson
import pybase64
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from services.cli.errors import CommandFailed
from services.cli.process import unwrapped
from services.cli.system import REALTIME_PATH
from shared.audio import FRAME_SAMPLES, ms_to_samples

Event = dict[str, Any]
PATIENCE_S = 60.0
"""Longest silence of the server after session.finish."""
_CHUNK_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What to ask of which server."""

    url: str
    model: str = ""
    language: str = ""
    silence_ms: int | None = None
    """None = the server's default."""
    manual: bool = False
    speed: float = 1.0
    """Times real time; 0 = as fast as the server takes it."""
    api_key: str = ""


@dataclass
class Clock:
    """When each 100 ms of audio was sent, on the event loop's clock."""

    sent_at: list[float] = field(default_factory=list)

    def moment_of(self, ms: int) -> float:
        """When the last sample before ``ms`` was sent."""
        chunk = max(ms_to_samples(ms) - 1, 0) // FRAME_SAMPLES
        return self.sent_at[min(chunk, len(self.sent_at) - 1)]


def realtime_url(url: str, model: str) -> str:
    """``url`` with what may be left out: scheme of HTTP, path, model."""
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    query = dict(parse_qsl(parts.query))
    if model:
        query["model"] = model
    path = parts.path if parts.path.strip("/") else REALTIME_PATH
    return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


def opening(ask: Ask) -> Event:
    """The session.update that says how to cut and recognise."""
    session: Event = {"modalities": ["text"], "input_audio_format": "pcm", "sample_rate": 16_000}
    if ask.language:
        session["input_audio_transcription"] = {"language": ask.language}
    if ask.manual:
        session["turn_detection"] = None
    elif ask.silence_ms is not None:
        session["turn_detection"] = {"type": "server_vad", "silence_duration_ms": ask.silence_ms}
    return {"event_id": "event_open", "type": "session.update", "session": session}


def append(pcm: bytes) -> str:
    """One input_audio_buffer.append as it goes over the wire."""
    encoded = pybase64.b64encode_as_string(pcm)
    return '{"type":"input_audio_buffer.append","audio":"' + encoded + '"}'


async def converse(ask: Ask, audio: Iterator[bytes], on_event: Callable[[Event], None], clock: Clock) -> None:
    """One session from greeting to session.finished.

    Raises:
        CommandFailed: no connection, refused, an error event, or no end; one line says which.
    """
    url = realtime_url(ask.url, ask.model)
    headers = {"Authorization": f"Bearer {ask.api_key}"} if ask.api_key else {}
    local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    try:
        async with connect(
            url,
            additional_headers=headers,
            compression=None,
            proxy=None if local else True,
            # Unpaced audio queues up before the server, and our pings behind it: silence proves nothing.
            ping_timeout=20 if ask.speed else None,
        ) as socket:
            with unwrapped():
                await _Conversation(socket, ask, on_event, clock).run(audio)
    except InvalidStatus as error:
        raise CommandFailed(f"{url} refused: HTTP {error.response.status_code}{_said(error)}") from error
    except (InvalidURI, InvalidHandshake) as error:
        raise CommandFailed(f"{url} is not a WebSocket address: {error}") from error
    except ConnectionClosed as error:
        close = error.rcvd
        why = f"code {close.code} {close.reason}".strip() if close else "without a word"
        raise CommandFailed(f"the server closed the connection before the end: {why}") from error
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise CommandFailed(f"no connection to {url}: {why}") from error


def _said(error: InvalidStatus) -> str:
    try:
        return f" ({orjson.loads(error.response.body)['message']})"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


class _Conversation:
    def __init__(
        self, socket: ClientConnection, ask: Ask, on_event: Callable[[Event], None], clock: Clock
    ) -> None:
        self._socket = socket
        self._ask = ask
        self._on_event = on_event
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._all_sent = False

    async def run(self, audio: Iterator[bytes]) -> None:
        try:
            async with asyncio.timeout(None) as patience, asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(audio, patience))
                await self._receive(patience)
                sending.cancel()
        except TimeoutError:
            raise CommandFailed(f"no session.finished within {PATIENCE_S:.0f} s") from None

    async def _send(self, audio: Iterator[bytes], patience: asyncio.Timeout) -> None:
        try:
            await self._say(opening(self._ask))
            await self._send_audio(audio)
            if self._ask.manual:
                await self._say({"event_id": "event_commit", "type": "input_audio_buffer.commit"})
            await self._say({"event_id": "event_finish", "type": "session.finish"})
            self._all_sent = True
            patience.reschedule(self._loop.time() + PATIENCE_S)
        except ConnectionClosed:
            pass  # the receiving side knows why

    async def _send_audio(self, audio: Iterator[bytes]) -> None:
        began = self._loop.time()
        while chunk := await asyncio.to_thread(next, audio, b""):
            if self._ask.speed:
                due = began + len(self._clock.sent_at) * _CHUNK_S / self._ask.speed
                await asyncio.sleep(due - self._loop.time())
            self._clock.sent_at.append(self._loop.time())
            await self._socket.send(append(chunk))

    async def _say(self, event: Event) -> None:
        await self._socket.send(orjson.dumps(event).decode())

    async def _receive(self, patience: asyncio.Timeout) -> None:
        while True:
            event = orjson.loads(await self._socket.recv())
            if self._all_sent:
                patience.reschedule(self._loop.time() + PATIENCE_S)
            self._on_event(event)
            match event["type"]:
                case "session.finished":
                    return
                case "error":
                    raise CommandFailed(f"the server says: {event['error']['message']}")

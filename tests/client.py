"""A raw client of the DashScope dialect, and how what two of them were told is compared.

It sends what a test says, in any order, and keeps every event with the moment it came. Audio goes out as fast
as the server takes it, unless a ``Pace`` holds it back.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from shared.audio import BYTES_PER_SAMPLE, SAMPLE_RATE

Event = dict[str, Any]
Test = Callable[[Event], bool]

MODEL = "qwen3-asr-flash-realtime"
BUFFER = "input_audio_buffer."
ITEM = "conversation.item.input_audio_transcription."
STARTED, STOPPED, COMMITTED = BUFFER + "speech_started", BUFFER + "speech_stopped", BUFFER + "committed"
CREATED = "conversation.item.created"
TEXT, COMPLETED, FAILED = ITEM + "text", ITEM + "completed", ITEM + "failed"
FINISHED = "session.finished"
ENDS = {COMPLETED, FAILED}
"""One of them is the last event of every item."""
PATIENCE_S = 40.0


@dataclass
class Pace:
    """When audio is due: ``speed`` times real time, on the given clock."""

    speed: float = 1.0
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _began: float | None = field(default=None, init=False)
    _played_s: float = field(default=0.0, init=False)

    async def play(self, seconds: float) -> None:
        """Wait until the audio before this piece has been heard."""
        if self._began is None:
            self._began = self.now()
        await self.sleep(self._began + self._played_s / self.speed - self.now())
        self._played_s += seconds


class Closed(Exception):
    """The server closed the connection, and what was waited for had not come."""


class Client:
    """One open connection."""

    def __init__(self, socket: ClientConnection, now: Callable[[], float]) -> None:
        self.socket = socket
        self.log: list[tuple[float, Event]] = []
        self.closed: tuple[int, str] | None = None
        """Code and reason of the close."""
        self._now = now
        self._news = asyncio.Event()

    async def listen(self) -> None:
        """Collect events until the connection ends."""
        try:
            while True:
                frame = await self.socket.recv(decode=True)
                self.log.append((self._now(), json.loads(frame)))
                self._news.set()
        except ConnectionClosed as error:
            close = error.rcvd
            self.closed = (close.code, close.reason) if close else (1006, "")
            self._news.set()

    # --- speaking ---------------------------------------------------------------------------------------

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def update(self, **session: Any) -> Event:
        """session.update; the answer to it, which may be an error."""
        seen = len(self.log)
        await self.send("session.update", event_id="event_update", session=session)
        return await self.until(lambda event: event["type"] in ("session.updated", "error"), since=seen)

    async def say(
        self, pcm: bytes, *, rate: int = SAMPLE_RATE, chunk_ms: int = 100, pace: Pace | None = None
    ) -> None:
        """Append PCM16 in pieces."""
        size = rate * chunk_ms // 1000 * BYTES_PER_SAMPLE
        for start in range(0, len(pcm), size):
            piece = pcm[start : start + size]
            if pace:
                await pace.play(len(piece) / BYTES_PER_SAMPLE / rate)
            await self.append(piece)

    async def append(self, piece: bytes) -> None:
        await self.send(BUFFER + "append", audio=base64.b64encode(piece).decode())

    async def commit(self) -> None:
        await self.send(BUFFER + "commit", event_id="event_commit")

    async def finish(self) -> None:
        await self.send("session.finish", event_id="event_finish")

    async def finished(self) -> list[Event]:
        """Finish, and wait for the end; everything that was heard."""
        await self.finish()
        await self.until(FINISHED)
        return self.events()

    # --- hearing ----------------------------------------------------------------------------------------

    def events(self, kind: str = "") -> list[Event]:
        """All events of a type, or all; in the order they came."""
        return [event for _, event in self.log if kind in ("", event["type"])]

    @property
    def session_id(self) -> str:
        sid: str = self.log[0][1]["session"]["id"]
        return sid

    def transcript(self) -> str:
        return transcript(self.events())

    async def until(
        self, what: str | Test, *, since: int = 0, count: int = 1, limit_s: float = PATIENCE_S
    ) -> Event:
        """Wait for the ``count``-th event of a type, or that passes a test, from ``since`` on."""
        test = what if callable(what) else lambda event: event["type"] == what
        async with asyncio.timeout(limit_s):
            while True:
                found = [event for _, event in self.log[since:] if test(event)]
                if len(found) >= count:
                    return found[count - 1]
                if self.closed:
                    raise Closed(self.closed, self.events())
                await self._wait()

    async def until_closed(self, limit_s: float = PATIENCE_S) -> tuple[int, str]:
        """Code and reason of the server's close."""
        async with asyncio.timeout(limit_s):
            while not self.closed:
                await self._wait()
        return self.closed

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


@asynccontextmanager
async def connected(
    url: str,
    *,
    model: str = MODEL,
    key: str = "",
    source: str = "127.0.0.1",
    now: Callable[[], float] = time.monotonic,
    **query: str,
) -> AsyncIterator[Client]:
    """A client that has been greeted, or turned away after the upgrade. Leaving the block hangs up.

    ``source``: the client's own address.
    """
    asked = {**({"model": model} if model else {}), **query}
    headers = {"Authorization": f"bearer {key}"} if key else {}
    async with connect(
        f"{url}?{urlencode(asked)}",
        additional_headers=headers,
        compression=None,
        proxy=None,
        ping_interval=None,  # unpaced audio queues up before the server, and pings behind it
        max_size=None,
        local_addr=(source, 0),
    ) as socket:
        client = Client(socket, now)
        listening = asyncio.create_task(client.listen())
        try:
            await client.until(lambda _: True)
            yield client
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


# --- what was heard --------------------------------------------------------------------------------------


def transcript(events: Iterable[Event]) -> str:
    return " ".join(event["transcript"] for event in events if event["type"] == COMPLETED)


def item_of(event: Event) -> str:
    """The item that an event is about; empty for those about the session."""
    item: str = event["item"]["id"] if "item" in event else event.get("item_id", "")
    return item


def check_order(events: list[Event], mode: str = "vad") -> None:
    """What PROTOCOLS A.5 promises of a session without ``clear``, whether it has ended or not."""
    items = list(dict.fromkeys(filter(None, map(item_of, events))))
    for item in items:
        _check_item([event for event in events if item_of(event) == item], mode)
    finished = [place for place, event in enumerate(events) if event["type"] == FINISHED]
    assert finished in ([], [len(events) - 1]), "something follows session.finished"
    for kinds in ({COMMITTED}, ENDS):
        told = [item_of(event) for event in events if event["type"] in kinds]
        assert told == items[: None if finished else len(told)], f"{kinds}: out of order, or left out"
    _check_chain(events)


def _check_item(events: list[Event], mode: str) -> None:
    kinds = [event["type"] for event in events]
    steps = [kind for kind in kinds if kind not in {TEXT, *ENDS}]
    whole = [STARTED, STOPPED, COMMITTED, CREATED] if mode == "vad" else [COMMITTED, CREATED]
    assert steps == whole[: len(steps)], kinds
    assert mode != "vad" or kinds[0] == STARTED, kinds
    if ENDS.intersection(kinds):
        assert steps == whole, kinds
        assert ENDS.isdisjoint(kinds[:-1]), kinds
    _check_texts([event for event in events if event["type"] == TEXT])


def _check_texts(texts: list[Event]) -> None:
    """``text`` only grows; both are strings; nothing is told twice."""
    before = ""
    for event in texts:
        assert isinstance(event["text"], str)
        assert isinstance(event["stash"], str)
        assert event["text"].startswith(before), (before, event["text"])
        before = event["text"]
    shown = [(event["text"], event["stash"]) for event in texts]
    assert all(a != b for a, b in pairwise(shown)), "a text event without a change"


def _check_chain(events: list[Event]) -> None:
    """Each item names the one before it, in both events that do."""
    for kind in (COMMITTED, CREATED):
        previous = None
        for event in events:
            if event["type"] == kind:
                assert event["previous_item_id"] == previous, event
                previous = item_of(event)


def masked(events: Iterable[Event], *, times: bool = False) -> Iterator[Event]:
    """Events without drafts, ids by their order of appearance; ``times``: positions in the audio as well."""
    names: dict[str, str] = {}
    for event in events:
        if event["type"] != TEXT:
            out = _masked(event, names, times)
            assert isinstance(out, dict)
            yield out


_IDS = {"id", "item_id", "previous_item_id"}
_TIMES = {"audio_start_ms", "audio_end_ms"}


def _masked(value: Any, names: dict[str, str], times: bool) -> Any:
    if isinstance(value, list):
        return [_masked(each, names, times) for each in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for key, each in value.items():
        if key in _IDS and isinstance(each, str):
            kind = each.partition("_")[0]
            number = sum(name.startswith(kind) for name in names.values()) + 1
            out[key] = names.setdefault(each, f"{kind}_{number}")
        elif key in _TIMES and times:
            out[key] = 0
        elif key == "event_id" and "type" in value and "code" not in value:
            out[key] = "event"  # the server's own; inside an error it is the client's
        else:
            out[key] = _masked(each, names, times)
    return out


def story(events: Iterable[Event], mode: str = "vad") -> dict[str, list[Event]]:
    """What was told of each item, and of the session: the same for two runs that are equal to their clients.

    (A ``completed`` may come before or after the next item's beginning.)"""
    events = list(events)
    check_order(events, mode)
    told: dict[str, list[Event]] = {}
    for event in masked(events):
        told.setdefault(item_of(event) or "session", []).append(event)
    return told

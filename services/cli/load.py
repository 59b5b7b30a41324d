"""The load of `auricle bench live`: many paced sessions in one process, which prints what it saw as JSON.

A process of its own (`python -m services.cli.load SPEC`), so that the clients' CPU is not the server's.
All starts are spread and all sessions are equally long, so that the ends are spread too: clients that stop
together make a burst of finals that no real day has.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic  # uvloop's own clock knows milliseconds only

import msgspec
import orjson
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from services.cli.captions import Line, Transcript
from services.cli.client import PATIENCE_S, Ask, Clock, append, opening
from services.cli.files import CHUNK_BYTES
from services.cli.stats import percentile

_CHUNK_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What one load process does: ``indexes`` of ``total`` sessions."""

    urls: Sequence[str]
    """Sessions take them in turn."""
    indexes: Sequence[int]
    total: int
    seconds: float
    spread_s: float
    """Over which the starts are spread."""
    silence_ms: int
    began_at: float
    """Start of the load, on the monotonic clock that all processes of a machine share."""
    pcm: str
    """File of 16 kHz PCM16 that every session loops, each from another place."""
    api_key: str = ""


@dataclass
class Item:
    """One utterance; None where an event is missing.

    What session.finish cut off is delivered but not measured: no silence was waited for.
    """

    delivered: bool
    second: float = 0.0
    """Of the load, in which the end of its audio was sent."""
    stop_to_final_ms: float | None = None
    queue_ms: float | None = None
    first_partial_ms: float | None = None


@dataclass
class Outcome:
    """What one session saw."""

    audio_s: float = 0.0
    finished: bool = False
    error: str = ""
    lag_ms: float = 0.0
    """How late we sent, at the 99th percentile: above some ms, we measured ourselves."""
    items: list[Item] = field(default_factory=list)


class Session:
    """One client."""

    def __init__(self, spec: Spec, index: int, appends: Sequence[str]) -> None:
        self._spec = spec
        self._index = index
        self._appends = appends
        self._clock = Clock()
        self._transcript = Transcript()
        self._late: list[float] = []
        self._finished = False
        self._error = ""

    async def run(self) -> Outcome:
        """Never raises for what a server can do: a lost session is a result."""
        await asyncio.sleep(self._starts_after_s())
        url = self._spec.urls[self._index % len(self._spec.urls)]
        key = self._spec.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with (
                connect(url, additional_headers=headers, compression=None, proxy=None) as socket,
                asyncio.TaskGroup() as group,
            ):
                hearing = group.create_task(self._hear(socket))
                await self._speak(socket)
                async with asyncio.timeout(PATIENCE_S):
                    await hearing
        except* (OSError, WebSocketException) as failed:
            self._error = self._error or repr(failed.exceptions[0])
        return self._outcome()

    def _starts_after_s(self) -> float:
        # The golden ratio spreads the sessions within the 100 ms of a frame: no two of them send in step.
        phase = self._index * 0.618 % 1 * _CHUNK_S
        return self._index / self._spec.total * self._spec.spread_s + phase

    async def _speak(self, socket: ClientConnection) -> None:
        ask = Ask(url="", silence_ms=self._spec.silence_ms)
        await socket.send(orjson.dumps(opening(ask)).decode())
        began = monotonic()
        first = self._index * len(self._appends) // self._spec.total
        for n in range(round(self._spec.seconds / _CHUNK_S)):
            due = began + n * _CHUNK_S
            await asyncio.sleep(due - monotonic())
            now = monotonic()
            self._late.append(now - due)
            self._clock.sent_at.append(now)
            await socket.send(self._appends[(first + n) % len(self._appends)])
        await socket.send('{"type":"session.finish"}')

    async def _hear(self, socket: ClientConnection) -> None:
        while not self._finished:
            event = orjson.loads(await socket.recv())
            self._transcript.take(event, monotonic())
            if event["type"] == "error":
                self._error = str(event["error"]["message"])
            self._finished = event["type"] == "session.finished"

    def _outcome(self) -> Outcome:
        return Outcome(
            audio_s=len(self._clock.sent_at) * _CHUNK_S,
            finished=self._finished,
            error=self._error,
            lag_ms=percentile(self._late, 0.99) * 1000 if self._late else 0.0,
            items=[self._item(line) for line in self._transcript.lines.values() if line.stopped_at],
        )

    def _item(self, line: Line) -> Item:
        end_ms = line.end_ms or 0
        sent_at = self._clock.moment_of(end_ms)
        item = Item(
            delivered=line.completed_at is not None and not line.failure,
            second=round(sent_at - self._spec.began_at, 1),
        )
        if line.completed_at and line.stopped_at and end_ms < len(self._clock.sent_at) * 100:
            item.stop_to_final_ms = (line.completed_at - sent_at) * 1000
            item.queue_ms = (line.completed_at - line.stopped_at) * 1000
        if line.partial_at and line.start_ms is not None:
            item.first_partial_ms = (line.partial_at - self._clock.moment_of(line.start_ms)) * 1000
        return item


async def _run(spec: Spec, pcm: bytes) -> list[Outcome]:
    appends = [append(pcm[i : i + CHUNK_BYTES]) for i in range(0, len(pcm) - CHUNK_BYTES + 1, CHUNK_BYTES)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(Session(spec, index, appends).run()) for index in spec.indexes]
    return [task.result() for task in tasks]


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1], type=Spec)
    outcomes = uvloop.run(_run(spec, Path(spec.pcm).read_bytes()))
    sys.stdout.buffer.write(msgspec.json.encode(outcomes))


if __name__ == "__main__":
    main()

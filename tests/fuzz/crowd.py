"""Random clients of a running service, many at once: they come, talk rubbish and go, and check every answer."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from services.ingress.dialects.registry import PATHS
from tests.client import COMMITTED, ENDS, FINISHED
from tests.fuzz.conversation import MODELS
from tests.fuzz.documented import DOCUMENTED, check
from tests.fuzz.frames import Frame, Fuzzer

AT_ONCE = 24
FRAMES_EACH = 60
"""Frames of one connection, at most."""
PATIENCE_S = 60.0
"""The last frame of a connection is answered sooner, or the fuzzer has found something."""
LAST_WORDS = (
    '{"type": "input_audio_buffer.commit"}',
    '{"type": "input_audio_buffer.clear"}',
    '{"type": "input_audio_buffer.commit", "event_id": "bye"}',
)
"""The last is refused, at once or by way of the session log, unless the session is at its end."""


@dataclass
class Crowd:
    """``base``: of the service, as ws://host:port."""

    base: str
    seed: int
    sent: Counter[str] = field(default_factory=Counter)
    heard: Counter[str] = field(default_factory=Counter)
    """Types of events, and codes of closes."""
    connections: int = 0

    async def rage(self, frames: int) -> None:
        """Send so many frames, all clients together."""
        goal = self.sent.total() + frames
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(self._visit_until(goal, random.Random(f"{self.seed}:{goal}:{number}")))

    async def _visit_until(self, goal: int, chance: random.Random) -> None:
        while self.sent.total() < goal:
            path, dialect = chance.choice(sorted(PATHS.items()))
            seed = chance.randrange(2**32)
            try:
                await self._visit(f"{self.base}{path}?model={MODELS[dialect]}", dialect, seed)
            except Exception as error:
                error.add_note(f"{dialect}, client seed {seed}, AURICLE_FUZZ_SEED={self.seed}")
                raise

    async def _visit(self, url: str, dialect: str, seed: int) -> None:
        self.connections += 1
        async with (
            connect(url, compression=None, proxy=None, ping_interval=None, max_size=None) as socket,
            asyncio.TaskGroup() as group,
        ):
            hearing = group.create_task(self._hear(socket, dialect))
            try:
                await self._talk(socket, random.Random(seed), Fuzzer(seed, dialect), dialect)
            except ConnectionClosed:
                pass  # told so, and why, to the one that hears
            await hearing

    async def _talk(
        self, socket: ClientConnection, chance: random.Random, fuzzer: Fuzzer, dialect: str
    ) -> None:
        for _ in range(chance.randrange(1, FRAMES_EACH)):
            await socket.send(_sendable(fuzzer.next(), chance))
            self.sent[dialect] += 1
        if chance.random() < 0.15:
            socket.transport.abort()  # in the middle of everything
            return
        if dialect == "dashscope" and chance.random() < 0.5:
            await socket.send('{"type": "session.finish"}')
        for last in LAST_WORDS:
            await socket.send(last)

    async def _hear(self, socket: ClientConnection, dialect: str) -> None:
        """Check every frame until the last word is answered, and every item; then hang up."""
        items: set[str] = set()
        answered = False
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not answered or items:
                    frame = await socket.recv(decode=True)
                    event = check(DOCUMENTED[dialect], str(frame))
                    self.heard[event["type"]] += 1
                    answered |= event.get("error", {}).get("event_id") == "bye"
                    if event["type"] == COMMITTED:
                        items.add(event["item_id"])
                    if event["type"] in ENDS:
                        items.discard(event["item_id"])
                    if event["type"] == FINISHED:
                        assert not items, "finished before all was told"
                        break
        except ConnectionClosed as closed:
            if closed.rcvd is not None:
                self._check_close(closed.rcvd.code, dialect)
        await socket.close()

    def _check_close(self, code: int, dialect: str) -> None:
        assert code in DOCUMENTED[dialect].closes, code
        self.heard[str(code)] += 1


def _sendable(frame: Frame, chance: random.Random) -> Frame | list[str]:
    """As a WebSocket can carry it, now and then in fragments."""
    if isinstance(frame, bytes):
        return frame
    text = frame.encode("utf-8", "replace").decode()
    if len(text) > 2 and chance.random() < 0.05:
        cut = chance.randrange(1, len(text))
        return [text[:cut], text[cut:]]
    return text

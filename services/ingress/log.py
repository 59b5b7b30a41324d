"""Writing one session's log: one publish in flight, everything that arrives meanwhile is coalesced.

Pipelined publishes came out of order when a broker's leader died; serial ones never did. What waits for its
acknowledgement is bounded: whoever feeds this awaits ``room`` before reading more from the client.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from shared import subjects
from shared.audio import BYTES_PER_SAMPLE, FRAME_SAMPLES, SAMPLE_RATE
from shared.bus import Bus, Chain
from shared.errors import BadMessage, BusUnavailable, Fenced
from shared.messages import Attached, Audio, Finished, Opened, Record, pack, read_record
from shared.sessions import place_of

UNACKED_LIMIT_SAMPLES = 15 * SAMPLE_RATE
CONTROLS_LIMIT = 16
CONTROLS_PER_S, CONTROLS_BURST = 20, 40
"""Records other than audio (settings, commits, clears) of one session."""
_RECORD_LIMIT_SAMPLES = SAMPLE_RATE
_LINGER_S = 0.1


class Gone(Exception):
    """The session does not exist, is over, or belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    pcm: bytes
    src_end: int
    src_rate: int


EndReason = Literal["client", "closed", "idle", "error", "admin"]
Control = Callable[[dict[str, Any]], Record]


class Budget:
    """Bytes that may wait for acknowledgements in this process, all sessions together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._freed = asyncio.Event()

    def take(self, count: int) -> None:
        self.used_bytes += count

    def give(self, count: int) -> None:
        self.used_bytes -= count
        self._freed.set()

    async def room(self) -> None:
        while self.used_bytes > self.limit_bytes:
            self._freed.clear()
            await self._freed.wait()


class SessionLog:
    """The writing end of one session, for one epoch."""

    def __init__(self, bus: Bus, sid: str, ingress: str, budget: Budget) -> None:
        place = place_of(sid)
        self.sid = sid
        self._ingress = ingress
        self._budget = budget
        self._chain = Chain(bus, subjects.audio_stream(place.lane), subjects.audio(sid))
        self._queue: deque[_Chunk | Control] = deque()
        self._wake = asyncio.Event()
        self._acked = asyncio.Event()
        self.ep = 0
        self._ix = 0
        self.pos = 0
        self.unacked_samples = 0
        self.finished = False
        """``finished`` is queued: nothing may follow."""
        self.src_end = 0
        """The client's audio up to here is accepted: bytes of its own format."""
        self._controls = 0
        self._control_due = 0.0
        self._released = False
        self.full_since: float | None = None
        """Since when the stream has refused records for lack of space."""

    # --- beginning ---------------------------------------------------------------------------------------

    async def open(self, **fields: Any) -> None:
        """Append ``opened``; ``fields`` are those of the record that are not common to all."""
        await self._append(Opened(**self._common(), ingress=self._ingress, **fields))

    async def attach(self, bus: Bus, tenant: str) -> None:
        """Take an existing session over: from here on the old writer is refused.

        Raises:
            Gone: no such session for this tenant, or it is finished.
        """
        stream, subject = subjects.audio_stream(place_of(self.sid).lane), subjects.audio(self.sid)
        while True:
            first = await bus.next(stream, subject, 1)
            tail = await bus.last(stream, subject)
            if first is None or tail is None:
                raise Gone("no such session")
            opened, last = read_record(first.data), read_record(tail.data)
            if not isinstance(opened, Opened) or opened.tenant != tenant or isinstance(last, Finished):
                raise Gone("not a session to continue")
            self._chain.tail = tail.seq
            self.ep, self._ix = last.ep + 1, last.ix + 1
            self.pos = last.pos + (last.n if isinstance(last, Audio) else 0)
            try:
                await self._append(Attached(**self._common(), ingress=self._ingress))
            except Fenced:
                continue  # the old writer was faster once more
            # What was accepted stands in the log now, and nothing can be added to it by anybody else.
            self.src_end = await self._last_src_end(bus, stream, tail.seq)
            return

    async def _last_src_end(self, bus: Bus, stream: str, seq: int) -> int:
        while seq:
            stored = await bus.get(stream, seq)
            if stored is None:
                return 0
            record = read_record(stored.data)
            if isinstance(record, Audio):
                return record.src_end
            seq = record.prev
        return 0

    # --- feeding -----------------------------------------------------------------------------------------

    def audio(self, pcm: bytes, src_end: int, src_rate: int) -> None:
        """PCM16 at 16 kHz; ``src_end``: bytes of the client's own format up to its end."""
        if not pcm or self.finished:
            return
        self._queue.append(_Chunk(pcm, src_end, src_rate))
        self.unacked_samples += len(pcm) // BYTES_PER_SAMPLE
        self._budget.take(len(pcm))
        self._wake.set()

    def control(self, make: Control) -> None:
        """A record other than audio; ``make`` is given the common fields when its turn comes."""
        if not self.finished:
            self._queue.append(make)
            self._controls += 1
            self._wake.set()

    def finish(self, reason: EndReason, *, discard: bool = False) -> None:
        """The last record; nothing is added behind it, and it is added once."""
        self.control(lambda common: Finished(**common, reason=reason, discard=discard))
        self.finished = True
        self._wake.set()

    async def room(self) -> None:
        """Wait while 15 s of audio or 16 other records wait to be acknowledged, or the process holds too much."""
        while not self._released and (
            self.unacked_samples >= UNACKED_LIMIT_SAMPLES or self._controls >= CONTROLS_LIMIT
        ):
            self._acked.clear()
            await self._acked.wait()
        if not self._released:
            await self._budget.room()

    def release(self) -> None:
        """Nothing is written any more: what was not sent is given up, and nobody waits for room."""
        self._released = self.finished = True
        for entry in self._queue:
            if isinstance(entry, _Chunk):
                self._budget.give(len(entry.pcm))
        self._queue.clear()
        self._acked.set()

    # --- writing -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write until ``finished`` is in the log. Raises Fenced when somebody else writes this session."""
        while True:
            if not self._queue:
                if self.finished:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            head = self._queue[0]
            if isinstance(head, _Chunk):
                await self._linger()
                await self._write_audio()
            else:
                self._queue.popleft()
                await self._pace()
                await self._append(head(self._common()))
                self._controls -= 1
                self._acked.set()

    async def _pace(self) -> None:
        """Records that are not audio cost every worker behind us: a client that floods them waits for itself."""
        now = time.monotonic()
        self._control_due = max(self._control_due, now) + 1 / CONTROLS_PER_S
        await asyncio.sleep(max(0.0, self._control_due - now - CONTROLS_BURST / CONTROLS_PER_S))

    async def _linger(self) -> None:
        """Wait a moment for a whole frame, unless something else is behind what is here."""
        if self.unacked_samples >= FRAME_SAMPLES or not isinstance(self._queue[-1], _Chunk):
            return
        try:
            async with asyncio.timeout(_LINGER_S):
                while self.unacked_samples < FRAME_SAMPLES and isinstance(self._queue[-1], _Chunk):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass

    async def _write_audio(self) -> None:
        parts: list[bytes] = []
        room = _RECORD_LIMIT_SAMPLES * BYTES_PER_SAMPLE
        src_end = self.src_end
        while room and self._queue and isinstance(chunk := self._queue[0], _Chunk):
            self._queue.popleft()
            rest = chunk.pcm[room:]
            parts.append(chunk.pcm[:room])
            room -= len(parts[-1])
            held_back = len(rest) // BYTES_PER_SAMPLE * chunk.src_rate // SAMPLE_RATE * BYTES_PER_SAMPLE
            if not rest or chunk.src_rate:  # else nobody can tell where in the client's stream it is cut
                src_end = chunk.src_end - held_back
            if rest:
                self._queue.appendleft(_Chunk(rest, chunk.src_end, chunk.src_rate))
        pcm = b"".join(parts)
        n = len(pcm) // BYTES_PER_SAMPLE
        try:
            await self._append(Audio(**self._common(), n=n, pcm=pcm, src_end=src_end))
        finally:
            self._budget.give(len(pcm))
        self.pos += n
        self.src_end = src_end
        self.unacked_samples -= n
        self._acked.set()

    def _common(self) -> dict[str, Any]:
        return {
            "ep": self.ep,
            "ix": self._ix,
            "prev": self._chain.tail,
            "pos": self.pos,
            "t": time.time_ns() // 1_000_000,
        }

    async def _append(self, record: Record) -> None:
        # A tail with equal bytes is this record, stored though its ack was lost. Epoch and index alone would
        # not do: a VAD worker's ``finished`` has them too, and two ingresses may attach at the same moment.
        await self._chain.append(pack(record), on_full=self._note_full)
        self.full_since = None
        self._ix += 1

    def _note_full(self) -> None:
        if self.full_since is None:
            self.full_since = time.monotonic()


async def ended_by(bus: Bus, sid: str) -> Record | None:
    """The last record of a session's log: why its writer was fenced. None while nobody can say."""
    place = place_of(sid)
    try:
        tail = await bus.last(subjects.audio_stream(place.lane), subjects.audio(sid))
    except BusUnavailable:
        return None
    try:
        return read_record(tail.data) if tail is not None else None
    except BadMessage:
        return None

"""Fetching the audio of a claim: parallel reads by sequence, each checked before it is believed."""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Iterable

from shared.audio import BYTES_PER_SAMPLE
from shared.bus import Bus, Stored
from shared.errors import AudioExpired, BusUnavailable
from shared.messages import Audio, Claim, Frame, frame_sequences, read_record
from shared.subjects import session_of

_TRIES = 5
_CACHE_BYTES = 32 << 20


class Claims:
    """Reads frames; remembers the latest, because interim requests ask for the same ones again and again."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._cache: OrderedDict[tuple[str, int], Frame] = OrderedDict()
        self._cached_bytes = 0

    def learn(self, sid: str, frames: Iterable[Frame]) -> None:
        """Frames that came along with a request: the next claims of this session need not fetch them."""
        for frame in frames:
            self._remember((sid, frame.seq), frame)

    async def pcm(self, sid: str, claim: Claim) -> bytes:
        """The claimed PCM16.

        Raises:
            AudioExpired: the frames are older than the stream, or are no longer this session's.
            BusUnavailable: ask again later.
        """
        records = await self._frames(sid, claim.stream, frame_sequences(claim))
        for earlier, later in itertools.pairwise(records):
            # Numbers are reused after a power loss: what does not follow is not what was claimed.
            if later.pos != earlier.pos + len(earlier.pcm) // BYTES_PER_SAMPLE:
                raise AudioExpired("frames of the claim do not follow each other")
        audio = b"".join(record.pcm for record in records)[2 * claim.offset : 2 * (claim.offset + claim.n)]
        if len(audio) != 2 * claim.n:
            raise AudioExpired("the claim's frames hold less audio than was claimed")
        return audio

    async def _frames(self, sid: str, stream: str, sequences: list[int]) -> list[Frame]:
        # By session: a claim that names another session's frame must not be served from memory either.
        known = {seq: self._cache[sid, seq] for seq in sequences if (sid, seq) in self._cache}
        missing = [seq for seq in sequences if seq not in known]
        if missing:
            for seq, stored in (await self._fetch(stream, missing)).items():
                record = read_record(stored.data)
                if session_of(stored.subject) != sid or not isinstance(record, Audio):
                    raise AudioExpired("the frame belongs to another session")
                known[seq] = Frame(seq=seq, pos=record.pos, pcm=record.pcm)
        for seq in sequences:
            self._remember((sid, seq), known[seq])
        return [known[seq] for seq in sequences]

    async def _fetch(self, stream: str, sequences: list[int]) -> dict[int, Stored]:
        found: dict[int, Stored] = {}
        for attempt in range(_TRIES):
            found |= await self._bus.direct_get_many(stream, [seq for seq in sequences if seq not in found])
            if len(found) == len(sequences):
                return found
            await asyncio.sleep(0.005 * 2**attempt)  # a replica may not have it right after the ack
        for seq in [seq for seq in sequences if seq not in found]:
            found[seq] = await self._ask_leader(stream, seq)
        return found

    async def _ask_leader(self, stream: str, seq: int) -> Stored:
        if (stored := await self._bus.get(stream, seq)) is not None:
            return stored
        if seq < await self._bus.first_seq(stream):
            raise AudioExpired("the frame is older than the stream")
        raise BusUnavailable("a frame cannot be read at present")

    def _remember(self, key: tuple[str, int], record: Frame) -> None:
        if key in self._cache:
            self._cache.move_to_end(key)
            return
        self._cache[key] = record
        self._cached_bytes += len(record.pcm)
        while self._cached_bytes > _CACHE_BYTES:
            _, old = self._cache.popitem(last=False)
            self._cached_bytes -= len(old.pcm)

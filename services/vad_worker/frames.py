"""The frame ledger: which records of the session log hold which samples.

It turns a range of samples into a claim, and forgets what no claim can reach any more. Records may have
holes between them (a gap in the log): a claim then covers what is there.
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from shared.messages import Claim


class FrameLedger:
    """Audio records in the order of the log, as parallel lists: a sequence and its range of samples."""

    __slots__ = ("_ends", "_seqs", "_starts", "_stream", "end")

    def __init__(self) -> None:
        self._stream = ""
        self._seqs: list[int] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.end = 0
        """Sample after the last one that was added; survives forgetting."""

    def __len__(self) -> int:
        return len(self._seqs)

    def add(self, seq: int, pos: int, n: int, stream: str) -> None:
        """Record ``seq`` of ``stream`` holds the samples from ``pos`` up to ``pos + n``."""
        if n <= 0:
            return
        self._stream = stream
        self._seqs.append(seq)
        self._starts.append(pos)
        self._ends.append(pos + n)
        self.end = pos + n

    def forget(self, before: int) -> None:
        """Drop the records that end at or before sample ``before``."""
        done = bisect_right(self._ends, before)
        if done:
            del self._seqs[:done], self._starts[:done], self._ends[:done]

    def claim(self, start: int, end: int) -> Claim:
        """What the ledger holds of the samples ``start`` to ``end``; empty if nothing."""
        frames: list[int] = []
        offset = taken = last = 0
        for i in range(bisect_right(self._ends, start), len(self._seqs)):
            first, stop = max(self._starts[i], start), min(self._ends[i], end)
            if stop <= first:
                break
            if not frames:
                offset = first - self._starts[i]
            frames.append(self._seqs[i] - last)
            last = self._seqs[i]
            taken += stop - first
        return Claim(stream=self._stream, frames=tuple(frames), offset=offset, n=taken)

    def pack(self) -> dict[str, Any]:
        """For a checkpoint. Each record as three small numbers: step of sequence, hole before it, length."""
        records: list[int] = []
        seq = pos = 0
        for i, start in enumerate(self._starts):
            records += (self._seqs[i] - seq, start - pos, self._ends[i] - start)
            seq, pos = self._seqs[i], self._ends[i]
        return {"stream": self._stream, "end": self.end, "records": records}

    @classmethod
    def restore(cls, packed: Mapping[str, Any]) -> "FrameLedger":
        ledger = cls()
        ledger._stream = packed["stream"]
        records, seq, pos = packed["records"], 0, 0
        for step, hole, n in zip(records[0::3], records[1::3], records[2::3], strict=True):
            seq, pos = seq + step, pos + hole
            ledger.add(seq, pos, n, ledger._stream)
            pos += n
        ledger.end = packed["end"]
        return ledger

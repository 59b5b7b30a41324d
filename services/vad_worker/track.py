"""The track: speech probability and loudness of the last windows of a session, and questions about them.

Windows follow each other without holes; one that does not follow (after a clear or a gap) starts the
track anew. A window belongs to the range of samples that holds its middle, so that neighbouring ranges
share no window and miss none.
"""

from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

from services.vad_worker.detectors.base import WINDOW

_HALF_PAUSE = 3
"""Windows on each side of a cut that are looked at: 96 ms."""


class Summary(NamedTuple):
    """What the windows of a range hold."""

    windows: int
    speech: int
    """Windows that are speech."""
    rms: float
    """Root mean square over the range, on [-1, 1]."""


class Track:
    """Values are kept as float32, as the detector gives them: a restored track equals the original."""

    __slots__ = ("_probs", "_rms", "end")

    def __init__(self) -> None:
        self.end = 0
        """Sample at which the last window ends."""
        self._probs = array("f")
        self._rms = array("f")

    def __len__(self) -> int:
        return len(self._probs)

    @property
    def last(self) -> float:
        """Probability of the last window; 0 if there is none."""
        return self._probs[-1] if self._probs else 0.0

    def append(self, end: int, prob: float, rms: float) -> None:
        if end != self.end + WINDOW:
            self.clear()
        self.end = end
        self._probs.append(prob)
        self._rms.append(rms)

    def clear(self) -> None:
        del self._probs[:], self._rms[:]

    def forget(self, before: int) -> None:
        """Drop the windows whose middle lies before sample ``before``."""
        done = self._index(before)
        if done:
            del self._probs[:done], self._rms[:done]

    def summary(self, start: int, end: int, threshold: float) -> Summary:
        lo, hi = self._index(start), self._index(end)
        if lo >= hi:
            return Summary(0, 0, 0.0)
        speech = sum(prob >= threshold for prob in self._probs[lo:hi])
        power = sum(rms * rms for rms in self._rms[lo:hi]) / (hi - lo)
        return Summary(hi - lo, speech, power**0.5)

    def heard(self, start: int, threshold: float) -> int | None:
        """End of the last window from ``start`` on with at least that probability."""
        for i in range(len(self._probs) - 1, self._index(start) - 1, -1):
            if self._probs[i] >= threshold:
                return self._start(i) + WINDOW
        return None

    def onset(self, start: int, threshold: float, need: int, span: int) -> int | None:
        """Where the first speech window begins, if ``need`` of the last ``span`` windows are speech.

        Windows before sample ``start`` do not count.
        """
        size = len(self._probs)
        lo = max(self._index(start), size - span)
        speech = [i for i in range(lo, size) if self._probs[i] >= threshold]
        return self._start(speech[0]) if len(speech) >= need else None

    def pause(self, lower: int, upper: int) -> int | None:
        """The boundary between two windows, above ``lower`` and not above ``upper``, to cut speech at.

        Where speech is least probable around it; of several pauses the quietest; of equals the latest.
        Probabilities are rounded for that, because in running speech they differ by noise only.
        """
        best: tuple[tuple[int, float], int] | None = None
        for i in range(_HALF_PAUSE, len(self._probs) - _HALF_PAUSE + 1):
            at = self._start(i)
            if not lower < at <= upper:
                continue
            around = slice(i - _HALF_PAUSE, i + _HALF_PAUSE)
            score = (round(sum(self._probs[around])), sum(self._rms[around]))
            if best is None or score <= best[0]:
                best = (score, at)
        return best[1] if best else None

    def boundary(self, upper: int) -> int:
        """The last sample up to ``upper`` at which a window begins or would begin."""
        return upper - (upper - self.end) % WINDOW

    def pack(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"end": self.end, "probs": self._probs.tobytes(), "rms": self._rms.tobytes()}

    @classmethod
    def restore(cls, packed: Mapping[str, Any]) -> "Track":
        track = cls()
        track.end = packed["end"]
        track._probs.frombytes(packed["probs"])
        track._rms.frombytes(packed["rms"])
        return track

    def _start(self, i: int) -> int:
        """Sample at which window ``i`` begins (``len`` = the end of the last one)."""
        return self.end - (len(self._probs) - i) * WINDOW

    def _index(self, sample: int) -> int:
        """The first window whose middle is at or after ``sample``."""
        middle = self._start(0) + WINDOW // 2
        return min(max(-((middle - sample) // WINDOW), 0), len(self._probs))

"""Audio records of any length in, windows of 512 samples out: the remainder waits for the next record.

Pure. The same samples give the same windows, however they are divided into records.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from services.vad_worker.detectors.base import WINDOW, Window
from shared.audio import BYTES_PER_SAMPLE

_FULL_SCALE = 32_768


class Windows:
    """The windowing of one session."""

    __slots__ = ("base", "remainder")

    def __init__(self, base: int = 0) -> None:
        self.base = base
        """Sample of the session at which ``remainder`` begins: the last window ended there."""
        self.remainder = b""
        """PCM that does not fill a window yet."""

    def push(self, pos: int, pcm: bytes) -> list[tuple[int, Window, float]]:
        """Add the PCM that begins at sample ``pos``; give each full window with its end and its RMS.

        Raises ValueError if samples are missing or come again: say ``reset`` first.
        """
        expected = self.base + len(self.remainder) // BYTES_PER_SAMPLE
        if pos != expected or len(pcm) % BYTES_PER_SAMPLE:
            raise ValueError(f"{len(pcm)} bytes at sample {pos} do not follow sample {expected}")
        data = self.remainder + pcm
        count = len(data) // (WINDOW * BYTES_PER_SAMPLE)
        if not count:
            self.remainder = data
            return []
        self.remainder = data[count * WINDOW * BYTES_PER_SAMPLE :]
        ends = range(self.base + WINDOW, self.base + count * WINDOW + 1, WINDOW)
        self.base += count * WINDOW
        audio = np.frombuffer(data, dtype="<i2", count=count * WINDOW).reshape(count, WINDOW)
        floats = audio.astype(np.float32) / np.float32(_FULL_SCALE)
        # Sums of squares of int16 are exact in float64, so that their order does not matter.
        exact = audio.astype(np.float64)
        rms = np.sqrt(np.einsum("ij,ij->i", exact, exact) / WINDOW) / _FULL_SCALE
        return list(zip(ends, floats, rms.tolist(), strict=True))

    def reset(self, pos: int) -> None:
        """Forget the remainder: the next window begins at sample ``pos``."""
        self.base, self.remainder = pos, b""

    def snapshot(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"base": self.base, "remainder": self.remainder}

    @classmethod
    def restore(cls, packed: Mapping[str, Any]) -> "Windows":
        windows = cls(packed["base"])
        windows.remainder = packed["remainder"]
        return windows

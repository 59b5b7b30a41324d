"""A detector without a model: loud is speech. For tests."""

from collections.abc import Sequence

import numpy as np

from services.vad_worker.detectors.base import DetectorState, Window

_HALF = 0.01
"""Root mean square on [-1, 1] that counts as speech with probability 0.5."""


class EnergyState:
    """Counts its windows, so that a state that was lost or used twice can be seen."""

    __slots__ = ("windows",)

    def __init__(self, windows: int = 0) -> None:
        self.windows = windows

    def pack(self) -> bytes:
        return self.windows.to_bytes(8, "big")


class Energy:
    hash = "energy-1"

    def fresh(self) -> EnergyState:
        return EnergyState()

    def load(self, packed: bytes) -> EnergyState:
        return EnergyState(int.from_bytes(packed, "big"))

    def detect(self, states: Sequence[DetectorState], windows: Sequence[Window]) -> list[float]:
        probabilities: list[float] = []
        for state, window in zip(states, windows, strict=True):
            assert isinstance(state, EnergyState)
            state.windows += 1
            rms = float(np.sqrt(np.mean(np.square(window, dtype=np.float64))))
            probabilities.append(rms / (rms + _HALF))
        return probabilities

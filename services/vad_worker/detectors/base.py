"""What a speech detector is: windows of 512 samples in, speech probabilities out, batched over sessions."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

WINDOW = 512
"""Samples of one window: 32 ms."""

Window = npt.NDArray[np.float32]


class DetectorState(Protocol):
    """The recurrent state of one session; opaque to callers."""

    def pack(self) -> bytes:
        """The state for a checkpoint."""


class Detector(Protocol):
    """Built once per process. Results never depend on which sessions share a batch."""

    @property
    def hash(self) -> str:
        """Identity of model and precision: states of another hash must not be loaded."""

    def fresh(self) -> DetectorState: ...

    def load(self, packed: bytes) -> DetectorState: ...

    def detect(self, states: Sequence[DetectorState], windows: Sequence[Window]) -> list[float]:
        """One window per state; float32 in [-1, 1], shape (512,). Advances the states in place."""

"""Silero VAD 6 through onnxruntime, one thread, many sessions in one call.

The model file comes out of the ``silero-vad`` package, which is never imported: it would want torch.
"""

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# onnxruntime reports its use to its maker unless it is told not to, before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from services.vad_worker.detectors.base import WINDOW, DetectorState, Window
from shared.audio import SAMPLE_RATE, Floats
from shared.errors import PermanentError

MODEL = "silero_vad_16k_op15.onnx"
SHA256 = "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"

_CONTEXT = 64
"""Samples of the window before that the model wants to see again."""
_LAYERS, _UNITS = 2, 128
_MEMORY_BYTES = _LAYERS * _UNITS * 4
_MAX_BATCH = 32
"""Longer batches are no cheaper per window, and hold the caller up."""


class SileroState:
    """What the model remembers of one session."""

    __slots__ = ("context", "memory")

    def __init__(self, memory: Floats, context: Floats) -> None:
        self.memory = memory
        """Shape (2, 128)."""
        self.context = context
        """Shape (64,): the end of the last window."""

    def pack(self) -> bytes:
        return self.memory.tobytes() + self.context.tobytes()


class Silero:
    def __init__(self) -> None:
        model = model_bytes(find_model())
        self.hash = SHA256[:16]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._feeds: dict[int, dict[str, Floats]] = {}
        """Input arrays by batch size: made once, written over in each call."""

    def fresh(self) -> SileroState:
        return SileroState(np.zeros((_LAYERS, _UNITS), np.float32), np.zeros(_CONTEXT, np.float32))

    def load(self, packed: bytes) -> SileroState:
        """Raises ValueError if ``packed`` has not the size of a state."""
        if len(packed) != _MEMORY_BYTES + _CONTEXT * 4:
            raise ValueError(f"a packed state of {len(packed)} bytes")
        memory = np.frombuffer(packed[:_MEMORY_BYTES], np.float32).reshape(_LAYERS, _UNITS)
        return SileroState(memory, np.frombuffer(packed[_MEMORY_BYTES:], np.float32))

    def detect(self, states: Sequence[DetectorState], windows: Sequence[Window]) -> list[float]:
        if len(states) != len(windows):
            raise ValueError(f"{len(states)} states for {len(windows)} windows")
        probabilities: list[float] = []
        for first in range(0, len(states), _MAX_BATCH):
            part = slice(first, first + _MAX_BATCH)
            probabilities += self._run(states[part], windows[part])
        return probabilities

    def _run(self, states: Sequence[DetectorState], windows: Sequence[Window]) -> list[float]:
        feed = self._feed(len(states))
        audio, memory = feed["input"], feed["state"]
        for i, state in enumerate(states):
            assert isinstance(state, SileroState)
            audio[i, :_CONTEXT] = state.context
            audio[i, _CONTEXT:] = windows[i]
            memory[:, i] = state.memory
        output, after = self._session.run(("output", "stateN"), feed)
        contexts = audio[:, WINDOW:].copy()
        for i, state in enumerate(states):
            assert isinstance(state, SileroState)
            # Rows of arrays that no later call writes to: nothing is copied.
            state.memory, state.context = after[:, i], contexts[i]
        probabilities: list[float] = output[:, 0].tolist()
        return probabilities

    def _feed(self, size: int) -> dict[str, Floats]:
        if size not in self._feeds:
            self._feeds[size] = {
                "input": np.zeros((size, _CONTEXT + WINDOW), np.float32),
                "state": np.zeros((_LAYERS, size, _UNITS), np.float32),
                "sr": np.array(SAMPLE_RATE, np.int64),
            }
        return self._feeds[size]


def find_model() -> Path:
    """Where the package keeps its model. Raises PermanentError if it is not installed."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise PermanentError("the package silero-vad is not installed")
    return Path(spec.submodule_search_locations[0]) / "data" / MODEL


def model_bytes(path: Path) -> bytes:
    """The model, checked first: loading a bad file can end the process without an exception."""
    try:
        model = path.read_bytes()
    except OSError as error:
        raise PermanentError(f"cannot read {path}: {error.strerror}") from error
    if hashlib.sha256(model).hexdigest() != SHA256:
        raise PermanentError(f"{path} is not the {MODEL} that this release was tested with")
    return model

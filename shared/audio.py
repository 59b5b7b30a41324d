"""PCM16 mono at 16 kHz: bytes, samples, milliseconds. Everything behind the ingress has this format."""

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
BYTES_PER_SAMPLE = 2
FRAME_SAMPLES = 1_600
"""Samples of a usual record of the session log: 100 ms."""

Floats = npt.NDArray[np.float32]


def ms_to_samples(ms: float) -> int:
    return int(ms * SAMPLE_RATE // 1000)


def samples_to_ms(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE


def pcm16_to_float(pcm: bytes) -> Floats:
    """PCM16 little-endian bytes to float32 in [-1, 1)."""
    return np.frombuffer(pcm, dtype="<i2").astype(np.float32) / np.float32(32768)


def float_to_pcm16(audio: Floats) -> bytes:
    """Float32 in [-1, 1) to PCM16 little-endian bytes; louder samples are clipped."""
    pcm: bytes = np.clip(np.rint(audio * 32768.0), -32768, 32767).astype("<i2").tobytes()
    return pcm

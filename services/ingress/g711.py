"""G.711, the codec of telephony: each byte is one sample. Tables, since audioop has left Python."""

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int16]


def _mulaw(byte: int) -> int:
    byte ^= 0xFF
    magnitude = ((byte & 0x0F) << 3) + 0x84 << ((byte & 0x70) >> 4)
    return 0x84 - magnitude if byte & 0x80 else magnitude - 0x84


def _alaw(byte: int) -> int:
    byte ^= 0x55
    exponent, magnitude = (byte & 0x70) >> 4, (byte & 0x0F) << 4
    magnitude = magnitude + 0x108 << exponent - 1 if exponent else magnitude + 8
    return magnitude if byte & 0x80 else -magnitude


MULAW: Table = np.array([_mulaw(byte) for byte in range(256)], dtype="<i2")
ALAW: Table = np.array([_alaw(byte) for byte in range(256)], dtype="<i2")


def expand(table: Table, data: bytes) -> bytes:
    """G.711 as PCM16."""
    return table[np.frombuffer(data, dtype=np.uint8)].tobytes()

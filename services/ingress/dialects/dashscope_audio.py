"""What an append carries: bytes to whole samples, with WAV headers taken off.

Headers are looked for where an item begins (there they may come in pieces) and at the start of any later
append, since in VAD mode clients send one WAV file after the other and only the server knows the items.
"""

import struct
from typing import NamedTuple

from services.ingress.dialects.realtime import AudioError

MAX_HEADER_BYTES = 64 * 1024
WAV_RATES = frozenset({8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000})
_PCM, _EXTENSIBLE = 1, 0xFFFE


class Piece(NamedTuple):
    audio: bytes
    rate: int = 0
    """Sample rate out of a WAV header that ended in this piece; 0 = there was none."""
    first: bool = False
    """The first audio of an item."""
    skipped: int = 0
    """Bytes before ``audio`` that are no audio."""


class Header(NamedTuple):
    rate: int
    length: int


class Intake:
    """Bytes of appends in, pieces of whole samples out."""

    def __init__(self) -> None:
        self._odd = b""
        self._head = b""
        self._first = True
        self._rate = 0
        self._skipped = 0
        self._refusal = ""

    def restart(self) -> None:
        """An item ended. Half a sample, or a header without audio, is left over and belongs to nothing."""
        self._skipped += len(self._odd) + len(self._head)
        self._odd = self._head = b""
        self._first = True
        self._rate = 0
        self._refusal = ""

    def feed(self, data: bytes) -> Piece | None:
        """None: nothing to pass on yet. Raises AudioError, also for all that follows a header it refused."""
        if self._head or self._first or (data[:4] == b"RIFF" and data[8:12] == b"WAVE"):
            return self._begin(self._head + data)
        if self._refusal:
            self._skipped += len(data)
            raise AudioError(self._refusal)
        return self._samples(data)

    def _begin(self, data: bytes) -> Piece | None:
        """Audio that may start with a header."""
        self._head = b""
        if not _may_be_wav(data):
            return self._samples(data)
        try:
            header = read_header(data)
        except AudioError as error:
            self.restart()
            self._first, self._refusal = False, str(error)
            self._skipped += len(data)
            raise
        if header is None:
            self._head = data
            return None
        self.restart()
        self._rate = header.rate
        self._skipped += header.length
        return self._samples(data[header.length :])

    def _samples(self, data: bytes) -> Piece | None:
        if self._odd:
            data = self._odd + data
        if len(data) % 2:
            data, self._odd = data[:-1], data[-1:]
        else:
            self._odd = b""
        if not data:
            return None
        piece = Piece(data, self._rate, self._first, self._skipped)
        self._first, self._rate, self._skipped = False, 0, 0
        return piece


def _may_be_wav(data: bytes) -> bool:
    return data[:4] == b"RIFF"[: len(data)] and data[8:12] == b"WAVE"[: max(0, len(data) - 8)]


def read_header(data: bytes) -> Header | None:
    """Walk the chunks up to the audio; None: not all of the header is there yet.

    The length of the data chunk is not believed: writers of streams put anything there. Raises AudioError.
    """
    rate, at = 16_000, 12
    while len(data) >= at + 8:
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"data":
            return Header(rate, at)
        if name == b"fmt ":
            if len(data) < at + 16:
                break
            rate = _rate_of(data[at : at + 16])
        at += size + size % 2
        if at > MAX_HEADER_BYTES:
            raise AudioError("Invalid audio: the WAV header is too long.")
    return None


def _rate_of(fmt: bytes) -> int:
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", fmt)
    if tag not in (_PCM, _EXTENSIBLE) or channels != 1 or bits != 16:
        raise AudioError("Invalid audio: a WAV file must hold 16-bit mono PCM.")
    if rate not in WAV_RATES:
        raise AudioError(f"Invalid audio: sample rate {rate} of the WAV file is not supported.")
    return int(rate)

"""Any rate of PCM16, or of G.711, to 16 kHz PCM16, piece by piece.

How the bytes are cut into pieces never changes what comes out, so a session that is sent in other chunks,
or coalesced under back-pressure, is the same session.
"""

from collections.abc import Iterator

import numpy as np
import soxr

from services.ingress.g711 import ALAW, MULAW, expand
from shared.audio import BYTES_PER_SAMPLE, SAMPLE_RATE, float_to_pcm16, pcm16_to_float
from shared.messages import AudioFormat

CODECS = {"pcm": None, "wav": None, "pcmu": MULAW, "pcma": ALAW}
"""Codec -> table of its bytes; None = PCM16 little-endian (a WAV header is taken off by the dialect)."""
RATES = range(8_000, 48_001)


class Converter:
    """One client's byte stream as PCM16 at 16 kHz."""

    def __init__(self, source: AudioFormat, consumed: int = 0) -> None:
        """``consumed``: bytes that earlier converters of the same client took already."""
        if source.codec not in CODECS:
            raise ValueError(f"no converter for codec {source.codec!r}")
        if source.sample_rate not in RATES:
            raise ValueError(f"no converter for {source.sample_rate} Hz")
        self._rate = source.sample_rate
        self._table = CODECS[source.codec]
        self._width = BYTES_PER_SAMPLE if self._table is None else 1
        self._base = consumed
        self._begin()

    def _begin(self) -> None:
        self._odd = b""
        self._samples_in = 0
        self._samples_out = 0
        # float32, since soxr's int16 output is dithered, and its dither depends on the chunking.
        self._stream = (
            None
            if self._rate == SAMPLE_RATE
            else soxr.ResampleStream(self._rate, SAMPLE_RATE, 1, dtype="float32")
        )

    @property
    def consumed(self) -> int:
        """Bytes of the client's stream that the output so far stands for.

        What the resampler still holds back does not count: after a crash it has to be sent again.
        """
        return self._base + min(self._samples_in * self._width, self.source_bytes(self._samples_out))

    @property
    def src_rate(self) -> int:
        """Half the bytes a second of the client's format, which is its rate when that is PCM16.

        By it the session log tells how much of the client's stream a part of a piece stands for.
        """
        return self._rate * self._width // BYTES_PER_SAMPLE

    def source_bytes(self, samples: int) -> int:
        """How many bytes of the client's format make ``samples`` of output."""
        return _rounded(samples, self._rate, SAMPLE_RATE) * self._width

    def skip(self, count: int) -> None:
        """``count`` bytes of the client's stream carried no audio and never came here."""
        self._base += count

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The next bytes; what is ready comes as one piece, which may be empty."""
        yield self.feed(data)

    def feed(self, data: bytes) -> bytes:
        """The next bytes; returns what is ready, which may be nothing."""
        if self._odd:
            data = self._odd + data
        if len(data) % self._width:
            data, self._odd = data[:-1], data[-1:]
        else:
            self._odd = b""
        self._samples_in += len(data) // self._width
        if self._table is not None:
            data = expand(self._table, data)
        if self._stream is None:
            return self._emit(data)
        return self._emit(float_to_pcm16(self._stream.resample_chunk(pcm16_to_float(data))))

    def flush(self) -> bytes:
        """The rest, so that the output is as long as the input was; then the converter starts anew.

        Half a sample at the end belongs to nothing and is left out.
        """
        rest = b""
        if self._stream is not None:
            last = self._stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)
            due = _rounded(self._samples_in, SAMPLE_RATE, self._rate) - self._samples_out
            rest = float_to_pcm16(last)[: due * BYTES_PER_SAMPLE].ljust(due * BYTES_PER_SAMPLE, b"\0")
        self._base += self._samples_in * self._width + len(self._odd)
        self._begin()
        return rest

    def _emit(self, pcm: bytes) -> bytes:
        self._samples_out += len(pcm) // BYTES_PER_SAMPLE
        return pcm


def _rounded(count: int, to_rate: int, from_rate: int) -> int:
    """``count`` samples at ``from_rate`` as samples at ``to_rate``, a half rounded up."""
    return (2 * count * to_rate + from_rate) // (2 * from_rate)

"""Opus to 16 kHz PCM16: an Ogg byte stream, or one raw packet with each append (told apart by their first bytes).

What cannot be decoded is left out and told once for an append, after all that could be: a decoder fed with
garbage gives noise or an error, never harm.
"""

import struct
from collections.abc import Iterator

import numpy as np
import opuslib_next

from services.ingress.ogg import MAGIC, OPUS_HEAD, Packets
from shared.audio import BYTES_PER_SAMPLE, SAMPLE_RATE
from shared.messages import AudioFormat

MAX_APPEND_S = 2 * 3600
"""Audio of one append: two bytes of Opus can stand for 0.12 s of silence, and an append has 15 MiB."""
_OPUS_TAGS = b"OpusTags"
_HEAD = struct.Struct("<8sBBHIhB")
_GRANULES = 48_000
_LONGEST_PACKET = SAMPLE_RATE * 120 // 1000
_PIECE_BYTES = SAMPLE_RATE * BYTES_PER_SAMPLE


class Undecodable(Exception):
    """(Part of) an append is not what its format says; the message is for the client."""


class Decoder:
    """Packets of one stream to PCM; stereo is mixed to mono by the codec itself."""

    def __init__(self, skip_samples: int = 0, gain: float = 1.0) -> None:
        self._opus = opuslib_next.Decoder(SAMPLE_RATE, 1)
        self._skip_bytes = skip_samples * BYTES_PER_SAMPLE
        self._gain = gain

    def decode(self, packet: bytes) -> bytes:
        """Raises Undecodable."""
        if not packet:
            raise Undecodable("Invalid audio: an empty Opus packet.")  # libopus would make audio up for it
        try:
            pcm: bytes = self._opus.decode(packet, _LONGEST_PACKET)
        except opuslib_next.OpusError as error:
            raise Undecodable(f"Invalid audio: not an Opus packet ({error}).") from None
        skipped, self._skip_bytes = pcm[self._skip_bytes :], max(0, self._skip_bytes - len(pcm))
        return skipped if self._gain == 1.0 else self._louder(skipped)

    def _louder(self, pcm: bytes) -> bytes:
        # Not by libopus: its control call is variadic, which ctypes cannot call on every platform.
        samples = np.frombuffer(pcm, dtype="<i2") * self._gain
        return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()


def decoder_of(head: bytes) -> Decoder:
    """A decoder for the stream with this ``OpusHead`` (RFC 7845). Raises Undecodable."""
    if len(head) < _HEAD.size:
        raise Undecodable("Invalid audio: the OpusHead is too short.")
    _, version, channels, pre_skip, _, gain_q8, family = _HEAD.unpack_from(head)
    if version >> 4 or family or channels not in (1, 2):
        raise Undecodable("Invalid audio: only mono and stereo Opus is supported.")
    return Decoder(pre_skip * SAMPLE_RATE // _GRANULES, 10 ** (gain_q8 / 256 / 20))


class OpusConverter:
    """One client's Opus as PCM16 at 16 kHz. Across a ``flush`` the stream goes on."""

    src_rate = 0
    """A piece of this format cannot be divided: see ``Converter.src_rate``."""

    def __init__(self, source: AudioFormat, consumed: int = 0) -> None:
        if source.codec != "opus":
            raise ValueError(f"no converter for codec {source.codec!r}")
        self._decoder: Decoder | None = Decoder()
        """None: of the Ogg stream in hand nothing can be decoded."""
        self._ogg: Packets | None = None
        self._settled = False
        """Something was decoded; from then on it is Ogg, or it is not."""
        self._base = consumed
        self._packets = 0

    @property
    def consumed(self) -> int:
        """The client's stream that the output so far stands for: bytes of Ogg, or raw packets."""
        return self._base + (self._ogg.consumed if self._ogg else self._packets)

    def skip(self, count: int) -> None:
        self._base += count

    def feed(self, data: bytes) -> bytes:
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The next append, decoded about a second at a time. Raises Undecodable after the last piece."""
        # No raw packet begins like an Ogg page: it would have 39 frames, or none.
        if self._ogg is None and not self._settled and data.startswith(MAGIC[: len(data)]):
            self._ogg = Packets()
            self._base, self._packets = self._base + self._packets, 0
        if self._ogg is None:
            self._packets += 1
            yield from self._decoded(iter([data]))
            return
        skipped = self._ogg.skipped
        try:
            yield from self._decoded(self._ogg.feed(data))
        finally:
            self._ogg.trim()  # pages that were not looked at: the append was too long
        if self._ogg.skipped > skipped:
            self._give_up_ogg()
            raise Undecodable("Invalid audio: not an Ogg stream.")

    def flush(self) -> bytes:
        """What can be decoded of a page that is not all there; what cannot is nobody's fault here."""
        if self._ogg is None:
            return b""
        pcm = bytearray()
        try:
            for piece in self._decoded(self._ogg.rest()):
                pcm += piece
        except Undecodable:
            pass
        return bytes(pcm)

    def _give_up_ogg(self) -> None:
        """Garbage that began like Ogg does not decide over what follows."""
        if not self._settled:
            self._base, self._ogg = self.consumed, None

    def _decoded(self, packets: Iterator[bytes]) -> Iterator[bytes]:
        held, samples = bytearray(), 0
        failure: Undecodable | None = None
        for packet in packets:
            try:
                held += self._decode(packet)
            except Undecodable as error:
                failure = failure or error
            if len(held) >= _PIECE_BYTES:
                samples += len(held) // BYTES_PER_SAMPLE
                yield bytes(held)
                held.clear()
            if samples > MAX_APPEND_S * SAMPLE_RATE:
                failure = Undecodable(f"Invalid audio: an append may hold {MAX_APPEND_S} s of audio.")
                break
        if held:
            yield bytes(held)
        if failure:
            raise failure

    def _decode(self, packet: bytes) -> bytes:
        if packet.startswith(OPUS_HEAD):
            self._decoder = None
            self._decoder = decoder_of(packet)
            return b""
        if packet.startswith(_OPUS_TAGS) or self._decoder is None:
            return b""
        pcm = self._decoder.decode(packet)
        self._settled = True
        return pcm

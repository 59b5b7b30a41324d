"""Opus for tests: speech out of PyAV's libopus, as an Ogg file or as raw packets; and pages built by hand."""

import io
import struct
from typing import Any

import av
import numpy as np

from services.ingress.ogg import checksum
from shared.audio import SAMPLE_RATE

_ENCODER_RATE = 48_000


def ogg_opus(pcm: bytes, *, layout: str = "mono", bit_rate: int = 32_000) -> bytes:
    """PCM16 at 16 kHz as an Ogg-Opus file."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream: Any = container.add_stream("libopus", rate=_ENCODER_RATE)
        stream.layout, stream.bit_rate = layout, bit_rate
        for frame in _frames(pcm, layout):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def raw_packets(pcm: bytes, *, layout: str = "mono", bit_rate: int = 32_000) -> list[bytes]:
    """PCM16 at 16 kHz as packets of 20 ms."""
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.bit_rate = _ENCODER_RATE, layout, bit_rate
    encoder.format = "s16"
    packets = [packet for frame in _frames(pcm, layout) for packet in encoder.encode(frame)]
    return [bytes(packet) for packet in [*packets, *encoder.encode(None)]]


def _frames(pcm: bytes, layout: str) -> list[Any]:
    samples = np.frombuffer(pcm, dtype="<i2").reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    resampler = av.AudioResampler(format="s16", layout=layout, rate=_ENCODER_RATE, frame_size=960)
    return [*resampler.resample(frame), *resampler.resample(None)]


def page(
    packets: list[bytes], *, flags: int = 0, serial: int = 1, number: int = 0, open_end: bool = False
) -> bytes:
    """A page of packets; ``open_end``: the last one (of a multiple of 255 bytes) goes on in the next page."""
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    lacing = lacing[:-1] if open_end else lacing
    head = struct.pack("<4sBBqII", b"OggS", 0, flags, 0, serial, number)
    rest = bytes([len(lacing)]) + lacing + b"".join(packets)
    return head + struct.pack("<I", checksum(head + bytes(4) + rest)) + rest


def opus_head(channels: int = 1, *, pre_skip: int = 0, gain_db: float = 0.0, family: int = 0) -> bytes:
    return struct.pack("<8sBBHIhB", b"OpusHead", 1, channels, pre_skip, 48_000, round(gain_db * 256), family)


def stream(packets: list[bytes], head: bytes | None = None, *, serial: int = 1) -> bytes:
    """Head, comments, and one page for every ten packets."""
    tags = b"OpusTags" + struct.pack("<I", 4) + b"test" + struct.pack("<I", 0)
    pages = [
        page([opus_head() if head is None else head], flags=2, serial=serial),
        page([tags], serial=serial),
    ]
    pages += [page(packets[at : at + 10], serial=serial) for at in range(0, len(packets), 10)]
    return b"".join(pages)

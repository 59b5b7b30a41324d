"""What turns a client's audio into 16 kHz PCM16, by the name of its codec. Whoever knows one more adds it here."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from services.ingress.opus import OpusConverter, Undecodable
from services.ingress.resample import CODECS, Converter
from shared.messages import AudioFormat

__all__ = ["CONVERTERS", "AudioConverter", "Undecodable", "converter_for"]


class AudioConverter(Protocol):
    """One client's stream of audio."""

    @property
    def consumed(self) -> int:
        """How far in the client's stream the output reaches: bytes or packets of its own format."""

    @property
    def src_rate(self) -> int:
        """Half the bytes a second of the client's format; 0: nobody can tell where a part of a piece came from."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The next append, a few seconds at a time. Raises Undecodable after the last piece."""

    def flush(self) -> bytes:
        """What was held back: the stretch ends here."""

    def skip(self, count: int) -> None:
        """So much of the client's stream carried no audio, and never came here."""


CONVERTERS: Mapping[str, Callable[[AudioFormat, int], AudioConverter]] = {
    **dict.fromkeys(CODECS, Converter),
    "opus": OpusConverter,
}


def converter_for(source: AudioFormat, consumed: int = 0) -> AudioConverter:
    """A converter that goes on after ``consumed``. Raises ValueError for a format that nobody converts."""
    if source.codec not in CONVERTERS:
        raise ValueError(f"no converter for codec {source.codec!r}")
    return CONVERTERS[source.codec](source, consumed)

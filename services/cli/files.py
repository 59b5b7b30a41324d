"""Any audio file as 16 kHz mono PCM16, in pieces of 100 ms, decoded as they are asked for."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import av

from services.cli.errors import CommandFailed
from shared.audio import BYTES_PER_SAMPLE, FRAME_SAMPLES, SAMPLE_RATE

CHUNK_BYTES = FRAME_SAMPLES * BYTES_PER_SAMPLE


def packaged_speech() -> Path:
    """The passage that comes with the default model: 44 s of read English."""
    spec = find_spec("moonshine_voice")  # imports nothing: its own import would load a library
    folders = (spec and spec.submodule_search_locations) or []
    for folder in folders:
        file = Path(folder) / "assets" / "two_cities.wav"
        if file.is_file():
            return file
    raise CommandFailed("the packaged speech is not installed: run `just setup`")


def read_pcm(path: Path) -> Iterator[bytes]:
    """Pieces of 100 ms; the last one may be shorter. Raises CommandFailed for what is no audio."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise CommandFailed(f"{path} has no audio track")
            yield from _chunks(_resampled(container))
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandFailed(f"cannot read {path}: {reason}") from error


def _resampled(container: av.container.InputContainer) -> Iterator[bytes]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    for frame in container.decode(audio=0):
        for piece in resampler.resample(frame):
            yield piece.to_ndarray().tobytes()
    for piece in resampler.resample(None):
        yield piece.to_ndarray().tobytes()


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = bytearray()
    for piece in pieces:
        rest += piece
        while len(rest) >= CHUNK_BYTES:
            yield bytes(rest[:CHUNK_BYTES])
            del rest[:CHUNK_BYTES]
    if rest:
        yield bytes(rest)

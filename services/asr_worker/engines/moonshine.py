"""Moonshine tiny-en out of the package moonshine-voice, as files that sherpa-onnx can open.

sherpa-onnx ends the process on a file that it cannot read, without an exception: so nothing is handed to it
that has not been compared with the hashes below first.
"""

import base64
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from shared.errors import AuricleError

PACKAGE: Final = "moonshine_voice"
ENCODER: Final = "encoder_model.ort"
DECODER: Final = "decoder_model_merged.ort"
TOKENIZER: Final = "tokenizer.bin"


class ModelUnavailable(AuricleError):
    """A model's files are not here, or are not what they should be. No use in trying again."""


@dataclass(frozen=True)
class Asset:
    size: int
    sha256: str


ASSETS: Final[dict[str, Asset]] = {
    ENCODER: Asset(13_281_600, "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221"),
    DECODER: Asset(30_412_256, "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0"),
    TOKENIZER: Asset(249_974, "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d"),
}
"""The files of moonshine-voice 0.1.0; later versions have no such model."""


@dataclass(frozen=True)
class ModelFiles:
    encoder: Path
    decoder: Path
    tokens: Path


def packaged_folder() -> Path:
    """Where the package keeps the model. Looks for the package without importing it: it opens PortAudio.

    Raises:
        ModelUnavailable: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelUnavailable("the package moonshine-voice is not installed")
    return Path(spec.origin).parent / "assets" / "tiny-en"


def why_not(folder: Path | None = None) -> str | None:
    """What is missing, in one line; quick, so sizes only and no hashes."""
    try:
        _check_sizes(folder or packaged_folder())
    except ModelUnavailable as error:
        return str(error)
    return None


@contextmanager
def verified_files(folder: Path | None = None) -> Iterator[ModelFiles]:
    """The model's files, checked byte by byte; ``tokens`` exists only within the context.

    tokens.txt is made anew each time (40 ms) in a folder of our own: a cache would be one more file to
    verify, and one that several processes write.

    Raises:
        ModelUnavailable: a file is missing or differs.
    """
    folder = folder or packaged_folder()
    _check_sizes(folder)
    for name, asset in ASSETS.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != asset.sha256:
                raise ModelUnavailable(f"{folder / name} is damaged: its sha256 is not that of the release")
    with tempfile.TemporaryDirectory(prefix="auricle-moonshine-") as made:
        tokens = Path(made) / "tokens.txt"
        tokens.write_bytes(tokens_text((folder / TOKENIZER).read_bytes()))
        yield ModelFiles(encoder=folder / ENCODER, decoder=folder / DECODER, tokens=tokens)


def tokens_text(tokenizer: bytes) -> bytes:
    """tokenizer.bin as sherpa's tokens.txt: one line ``base64(token) id`` for each token."""
    return b"".join(
        base64.b64encode(token) + b" %d\n" % index for index, token in enumerate(read_tokens(tokenizer))
    )


def read_tokens(tokenizer: bytes) -> list[bytes]:
    """The records of tokenizer.bin: a length of one byte, or of two when it is 128 or more, and the token.

    Raises:
        ModelUnavailable: the last record is cut off.
    """
    tokens: list[bytes] = []
    at = 0
    while at < len(tokenizer):
        length = tokenizer[at]
        at += 1
        if length >= 128:
            if at == len(tokenizer):
                raise ModelUnavailable("tokenizer.bin is cut off within a length")
            length += tokenizer[at] * 128 - 128
            at += 1
        token = tokenizer[at : at + length]
        if len(token) < length:
            raise ModelUnavailable("tokenizer.bin is cut off within a token")
        tokens.append(token)
        at += length
    return tokens


def _check_sizes(folder: Path) -> None:
    for name, asset in ASSETS.items():
        path = folder / name
        if not path.is_file():
            raise ModelUnavailable(f"{path} is missing")
        if path.stat().st_size != asset.size:
            raise ModelUnavailable(f"{path} has {path.stat().st_size} bytes instead of {asset.size}")

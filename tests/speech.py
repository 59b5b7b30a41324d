"""Real speech for tests: the speech set where there is one, and what the packages carry; and its measure.

The speech set is the folder AURICLE_DATA names or, without it, ``../shared/data`` beside the repository.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

from shared.audio import SAMPLE_RATE, Floats, pcm16_to_float

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Clip:
    """One line of the manifest."""

    id: str
    path: Path
    category: str
    text: str
    language: str
    seconds: float
    vad_speech: float
    hard: bool

    def pcm(self) -> bytes:
        return decode(self.path)

    def audio(self) -> Floats:
        return pcm16_to_float(self.pcm())


def speech_set() -> Path | None:
    """The folder of the speech set, or None where there is none."""
    folder = Path(os.environ.get("AURICLE_DATA") or _BESIDE)
    return folder if (folder / "manifest.jsonl").is_file() else None


def clips(category: str | None = None) -> list[Clip]:
    """The clips of a category, or all; skips the test where there is no speech set."""
    folder = speech_set()
    if folder is None:
        pytest.skip("no speech set: AURICLE_DATA names no folder with a manifest.jsonl")
    return [clip for clip in _manifest(folder) if category in (None, clip.category)]


@cache
def _manifest(folder: Path) -> list[Clip]:
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [_clip(folder, json.loads(line)) for line in lines]


def _clip(folder: Path, line: dict[str, object]) -> Clip:
    return Clip(
        id=str(line["id"]),
        path=folder / str(line["path"]),
        category=str(line["category"]),
        text=str(line.get("text") or ""),
        language=str(line.get("lang") or ""),
        seconds=float(str(line["seconds"])),
        vad_speech=float(str(line.get("vad_speech", 1.0))),
        hard=bool(line.get("hard", False)),
    )


def packaged_speech(name: str) -> bytes:
    """A recording out of the package moonshine-voice, which is not imported, as PCM16 at 16 kHz."""
    spec = find_spec("moonshine_voice")
    assert spec is not None, "moonshine-voice is not installed"
    assert spec.origin is not None
    return decode(Path(spec.origin).parent / "assets" / name)


def decode(path: Path) -> bytes:
    """Any audio file as PCM16 at 16 kHz mono."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return b"".join(np.ascontiguousarray(frame.to_ndarray()).tobytes() for frame in frames)


def normalised_words(text: str) -> list[str]:
    """The words that are compared: CONTRACTS section 3."""
    return re.sub(r"[^a-z0-9' ]", "", text.lower().replace("-", " ")).split()


def word_errors(expected: str, heard: str) -> tuple[int, int]:
    """Edit distance over words, and the number of expected words."""
    left, right = normalised_words(expected), normalised_words(heard)
    return _distance(left, right), len(left)


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Of pairs (expected, heard): all errors over all expected words."""
    counts = [word_errors(expected, heard) for expected, heard in pairs]
    return sum(errors for errors, _ in counts) / sum(words for _, words in counts)


def _distance(left: Sequence[str], right: Sequence[str]) -> int:
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]

"""An engine without a model, for load and fault tests: its text is a pure function of the audio.

One word for each half second, made of the CRC of that half second's PCM16: audio that was lost, doubled or
cut elsewhere shows in the text, and a partial is a prefix of every later hypothesis of the same segment.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

import numpy as np

from services.asr_worker.engines.base import Hypothesis, Job, Traits
from shared.audio import BYTES_PER_SAMPLE, SAMPLE_RATE, Floats, float_to_pcm16
from shared.errors import EngineError

WORD_SAMPLES: Final = SAMPLE_RATE // 2
SILENT_RMS: Final = 1e-4
"""Chunks below this have no word; the last bit of PCM16 is 3e-5."""
EXIT_CODE: Final = 70
LOUDEST: Final = 8.0


def words_of(audio: Floats, *, final: bool = True) -> list[str]:
    """The words of a segment. While it is open (not ``final``), its last, incomplete chunk has none yet."""
    pcm = memoryview(float_to_pcm16(audio))
    end = audio.size if final else audio.size - audio.size % WORD_SAMPLES
    words: list[str] = []
    for start in range(0, end, WORD_SAMPLES):
        chunk = audio[start : start + WORD_SAMPLES]
        if np.dot(chunk, chunk) >= SILENT_RMS**2 * chunk.size:
            at = start * BYTES_PER_SAMPLE
            words.append(f"w{crc32(pcm[at : at + chunk.size * BYTES_PER_SAMPLE]):08x}")
    return words


@dataclass(kw_only=True)
class ScriptedEngine:
    """Deterministic text, adjustable cost, and faults.

    Faults hit finals only: a partial is worth nothing, and tests count the attempts of finals.
    """

    ms_per_s: float = 0.0
    """Simulated computing for each second of audio."""
    fixed_ms: float = 0.0
    """The same for each call."""
    slots: int = 1
    languages: Sequence[str] = ()
    fail_every: int = 0
    """Every n-th final of this process raises EngineError, and may succeed when tried again. 0 = never."""
    raise_on: Collection[int] = ()
    """Ordinals that raise EngineError each time."""
    exit_on: Collection[int] = ()
    """Ordinals that end the process at once, as a native library that aborts does."""
    hang_on: Collection[int] = ()
    """Ordinals whose call does not come back before ``close``."""
    sleep: Callable[[float], None] = time.sleep
    _finals: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1), init=False)
    _closed: threading.Event = field(default_factory=threading.Event, init=False)

    @staticmethod
    def why_not() -> str | None:
        return None

    @property
    def traits(self) -> Traits:
        return Traits(name="scripted", languages=tuple(self.languages), slots=self.slots)

    def transcribe(self, job: Job) -> Hypothesis:
        """Raises EngineError where the script says so, and for audio that is not finite samples."""
        if self._closed.is_set():
            raise EngineError("the engine is closed")
        _check_audio(job.audio)
        if job.final:
            self._play_faults(job.ordinal)
        busy_ms = self.fixed_ms + self.ms_per_s * job.audio.size / SAMPLE_RATE
        if busy_ms > 0:
            self.sleep(busy_ms / 1000)
        language = job.language or next(iter(self.languages), "en")
        return Hypothesis(text=" ".join(words_of(job.audio, final=job.final)), language=language)

    def close(self) -> None:
        self._closed.set()

    def _play_faults(self, ordinal: int) -> None:
        number = next(self._finals)  # one step of C: threads never get the same number
        if ordinal in self.exit_on:
            os._exit(EXIT_CODE)
        if ordinal in self.hang_on:
            self._closed.wait()
            raise EngineError("closed while it hung")
        if ordinal in self.raise_on:
            raise EngineError(f"scripted to fail at ordinal {ordinal}")
        if self.fail_every and number % self.fail_every == 0:
            raise EngineError(f"scripted to fail at final {number}")


def _check_audio(audio: Floats) -> None:
    if audio.ndim != 1:
        raise EngineError(f"audio of {audio.ndim} dimensions instead of one")
    # Written so that NaN fails, too.
    if audio.size and not np.max(np.abs(audio)) <= LOUDEST:
        raise EngineError("audio holds samples that are not finite, or far beyond full scale")

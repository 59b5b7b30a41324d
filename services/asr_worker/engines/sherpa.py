"""Moonshine tiny-en on sherpa-onnx: English on a CPU, without a model hub.

One recognizer is shared by all threads and computes in one thread per call: more slots, not more threads
(two threads a call gained nothing). The guards keep what the model makes up on noise out of the transcript;
their numbers were measured on the speech set and stand at each constant.
"""

import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.asr_worker.engines import moonshine
from services.asr_worker.engines.base import Hypothesis, Job, Traits
from services.asr_worker.guards import is_subtitle_of_silence, speakable
from shared.audio import SAMPLE_RATE, Floats, ms_to_samples
from shared.errors import EngineError

MAX_AUDIO_S: Final = 15.0
"""Decoding time grows faster than the audio: 30 s would take up to 1.4 s, while whoever speaks waits for the
final, for 0.15 points of word error rate less."""
REFUSED_AUDIO_S: Final = 60.0
"""A segment a little over the trait is still decoded: to lose it would be worse."""
LOUDEST: Final = 8.0
"""Full scale is 1; resamplers overshoot it a little."""

WORDLESS_SAMPLES: Final = ms_to_samples(150)
"""Shorter audio holds no word: the shortest spoken digit has 290 ms."""
PADDED_SAMPLES: Final = SAMPLE_RATE // 2
"""Shorter audio gets zeros on both sides. Single digits without context: 53 % right instead of 47 %; longer
padding, or any on longer audio, made it no better or worse (12.4 % to 12.5-13.8 % word errors)."""

LEVEL_SAMPLES: Final = ms_to_samples(20)
SILENT_DB: Final = -65.0
"""No frame louder than this: nothing was said. Quiet speech of -60 dBFS on average is recognised well (13.9 %
word errors instead of 11.8 %), and its loudest frames are 10 dB above."""
FAINT_DB: Final = -50.0
"""Loudest frame of doubtful audio; the faintest speech of the set has -40."""
AUDIBLE_DB: Final = -70.0
"""Frames below do not count in the spread: digital zeros between words say nothing about the rest."""
STEADY_SPREAD_DB: Final = 1.5
"""Standard deviation of the levels of the audible frames. Hum 0, hiss 0.4, kitchen and fan 0.6-1.6; the
noisiest of 493 VAD-cut speech segments 4.2, speech at 0 dB in noise 2.2."""
STEADY_SAMPLES: Final = ms_to_samples(800)
"""Only audio of this length can be called steady: one vowel is, too."""
DOUBTFUL_SPREAD_DB: Final = 3.5
"""Pink noise goes up to 3.0."""


@dataclass(frozen=True)
class Levels:
    """What can be said about audio without a model."""

    loudest_db: float
    """dBFS of the loudest 20 ms."""
    spread_db: float
    """Standard deviation of the levels of audible frames."""
    samples: int

    @property
    def speechless(self) -> bool:
        """Surely no speech: silence, or a sound as steady as no speech is."""
        steady = self.samples >= STEADY_SAMPLES and self.spread_db < STEADY_SPREAD_DB
        return self.loudest_db < SILENT_DB or steady

    @property
    def doubtful(self) -> bool:
        return self.loudest_db < FAINT_DB or self.spread_db < DOUBTFUL_SPREAD_DB


def measure_levels(audio: Floats) -> Levels:
    """Levels of the frames of ``audio`` (one or more) around its mean: a microphone's offset is no sound."""
    frames = audio.size // LEVEL_SAMPLES
    cut = audio[: frames * LEVEL_SAMPLES].reshape(frames, -1)
    power = np.mean(np.square(cut - np.mean(audio)), axis=1)
    levels = 10 * np.log10(power + 1e-12)
    audible = levels[levels > AUDIBLE_DB]
    spread = float(np.std(audible)) if audible.size else 0.0
    return Levels(loudest_db=float(np.max(levels)), spread_db=spread, samples=audio.size)


class SherpaEngine:
    """English by Moonshine tiny-en."""

    def __init__(self, *, slots: int = 1, model_folder: Path | str | None = None) -> None:
        self._traits = Traits(
            name="moonshine-tiny-en", languages=("en",), max_audio_s=MAX_AUDIO_S, slots=slots
        )
        self._recognizer = _build_recognizer(Path(model_folder) if model_folder else None)
        self._closed = threading.Event()
        self._decode(np.zeros(SAMPLE_RATE, dtype=np.float32))  # warm-up: the first call allocates

    @staticmethod
    def why_not() -> str | None:
        if find_spec("sherpa_onnx") is None:
            return "the package sherpa-onnx is not installed"
        return moonshine.why_not()

    @property
    def traits(self) -> Traits:
        return self._traits

    def transcribe(self, job: Job) -> Hypothesis:
        """Raises EngineError for audio that is not one channel of finite samples, or longer than a minute."""
        if self._closed.is_set():
            raise EngineError("the engine is closed")
        audio = _check_audio(job.audio)
        return Hypothesis(text=self._guarded_text(audio), language="en")

    def _guarded_text(self, audio: Floats) -> str:
        if audio.size < WORDLESS_SAMPLES:
            return ""
        levels = measure_levels(audio)
        if levels.speechless:
            return ""
        text = speakable(self._decode(_pad_short(audio)))
        return "" if levels.doubtful and is_subtitle_of_silence(text) else text

    def close(self) -> None:
        """No call starts any more. The recognizer goes with the last call that still uses it."""
        self._closed.set()

    def _decode(self, audio: Floats) -> str:
        try:
            stream = self._recognizer.create_stream()
            stream.accept_waveform(SAMPLE_RATE, audio)
            self._recognizer.decode_stream(stream)
        except RuntimeError as error:
            raise EngineError(f"sherpa-onnx: {error}") from error
        text: str = stream.result.text
        return text.replace("<unk>", "")


def _build_recognizer(folder: Path | None) -> Any:
    with moonshine.verified_files(folder) as files:
        # Here and not at the top: a probe must not load the native library.
        import sherpa_onnx

        return sherpa_onnx.OfflineRecognizer.from_moonshine_v2(
            encoder=str(files.encoder), decoder=str(files.decoder), tokens=str(files.tokens), num_threads=1
        )


def _check_audio(audio: Floats) -> Floats:
    if audio.ndim != 1:
        raise EngineError(f"audio of {audio.ndim} dimensions instead of one")
    if audio.size > REFUSED_AUDIO_S * SAMPLE_RATE:
        raise EngineError(f"audio of {audio.size} samples is too long for one call")
    # Written so that NaN fails, too: the model answers it with hundreds of <unk>.
    if audio.size and not np.max(np.abs(audio)) <= LOUDEST:
        raise EngineError("audio holds samples that are not finite, or far beyond full scale")
    return np.ascontiguousarray(audio, dtype=np.float32)


def _pad_short(audio: Floats) -> Floats:
    missing = max(0, PADDED_SAMPLES - audio.size)
    return np.pad(audio, (missing // 2, missing - missing // 2)) if missing else audio

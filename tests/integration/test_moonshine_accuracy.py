"""Moonshine on the speech set: how many words are wrong, and what it says where nobody speaks."""

from collections.abc import Iterator

import pytest

from services.asr_worker.engines.base import Engine, Job
from services.asr_worker.engines.registry import load_engine
from services.asr_worker.engines.sherpa import measure_levels
from tests.speech import Clip, clips, word_error_rate

pytestmark = pytest.mark.data

STEADY = {"sc_exercise_bike", "sc_pink_noise", "alsa_noise", "silence_digital", "silence_hiss", "hum_50hz"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    built = load_engine("packaged")
    yield built
    built.close()


def text_of(engine: Engine, clip: Clip) -> str:
    return engine.transcribe(Job(audio=clip.audio())).text


def test_english_files_are_recognised(engine: Engine) -> None:
    files = [clip for clip in clips("en") if not clip.hard]
    assert len(files) >= 50
    rate = word_error_rate((clip.text, text_of(engine, clip)) for clip in files)
    print(f"word error rate of {len(files)} whole files: {rate:.2%}")
    assert rate < 0.12


def test_the_levels_of_speech_are_neither_steady_nor_doubtful() -> None:
    for clip in clips("en") + clips("zh") + clips("tel8k"):
        levels = measure_levels(clip.audio())
        assert not levels.speechless, (clip.id, levels)
        assert not levels.doubtful, (clip.id, levels)


def test_noise_without_any_modulation_gives_no_text(engine: Engine) -> None:
    """The engine alone: in the pipeline the VAD stands before it, and keeps the other noises out as well."""
    quiet = [clip for clip in clips("noise") if clip.vad_speech <= 0.05 and "babble" not in clip.id]
    heard = {clip.id: text for clip in quiet if (text := text_of(engine, clip))}
    print(f"text on {len(heard)} of {len(quiet)} noise files: {heard}")
    assert {clip.id for clip in quiet} >= STEADY
    assert not heard.keys() & STEADY

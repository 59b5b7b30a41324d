"""The scripted engine: text that gives away every change of the audio, and faults on request."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.asr_worker.engines.base import Job
from services.asr_worker.engines.scripted import EXIT_CODE, WORD_SAMPLES, ScriptedEngine, words_of
from shared.audio import SAMPLE_RATE, Floats, pcm16_to_float
from shared.errors import EngineError


def noise(samples: int, seed: int = 0) -> Floats:
    values = np.random.default_rng(seed).integers(-20_000, 20_000, samples)
    return pcm16_to_float(values.astype("<i2").tobytes())


def text_of(audio: Floats, *, final: bool = True) -> str:
    return ScriptedEngine().transcribe(Job(audio=audio, final=final)).text


def test_one_word_for_each_half_second() -> None:
    assert len(words_of(noise(3 * SAMPLE_RATE))) == 6
    assert len(words_of(noise(3 * SAMPLE_RATE + 1))) == 7


def test_the_words_are_those_of_the_pcm16_whatever_process_makes_them() -> None:
    ramp = pcm16_to_float(np.arange(WORD_SAMPLES, dtype="<i2").tobytes())
    assert text_of(ramp) == "wf94d45d8"


def test_silent_chunks_have_no_word() -> None:
    silence = np.zeros(WORD_SAMPLES, dtype=np.float32)
    spoken = noise(WORD_SAMPLES)
    assert text_of(silence) == ""
    assert text_of(np.full(WORD_SAMPLES, 0.9e-4, dtype=np.float32)) == ""
    assert text_of(np.concatenate([silence, spoken])) == text_of(spoken)


@given(st.integers(0, 40_000), st.integers(0, 40_000))
def test_a_partial_is_a_prefix_of_everything_later(one: int, other: int) -> None:
    early, late = sorted((one, other))
    audio = noise(late)
    partial = words_of(audio[:early], final=False)
    assert words_of(audio, final=False)[: len(partial)] == partial
    assert words_of(audio)[: len(partial)] == partial


@given(st.integers(1, 30_000), st.integers(1, 400))
def test_lost_and_doubled_audio_changes_the_text(at: int, length: int) -> None:
    audio = noise(32_000)
    lost = np.concatenate([audio[:at], audio[at + length :]])
    doubled = np.concatenate([audio[: at + length], audio[at:]])
    assert len({text_of(audio), text_of(lost), text_of(doubled)}) == 3


def test_computing_is_simulated_by_the_length_of_the_audio() -> None:
    slept: list[float] = []
    engine = ScriptedEngine(ms_per_s=20, fixed_ms=5, sleep=slept.append)
    engine.transcribe(Job(audio=noise(2 * SAMPLE_RATE)))
    assert slept == [0.045]


def test_language_is_the_jobs_or_the_engines_first() -> None:
    engine = ScriptedEngine(languages=["zh", "en"], slots=3)
    assert engine.transcribe(Job(audio=noise(8), language="en")).language == "en"
    assert engine.transcribe(Job(audio=noise(8))).language == "zh"
    assert (engine.traits.languages, engine.traits.slots) == (("zh", "en"), 3)


def test_every_nth_final_fails_once() -> None:
    engine = ScriptedEngine(fail_every=3)
    assert [_fails(engine, Job(audio=noise(8), ordinal=7)) for _ in range(7)] == [0, 0, 1, 0, 0, 1, 0]


def test_a_marked_ordinal_fails_each_time_but_not_its_partials() -> None:
    engine = ScriptedEngine(raise_on=[2])
    assert _fails(engine, Job(audio=noise(8), ordinal=2))
    assert _fails(engine, Job(audio=noise(8), ordinal=2))
    assert not _fails(engine, Job(audio=noise(8), ordinal=1))
    assert not _fails(engine, Job(audio=noise(8), ordinal=2, final=False))


def test_a_marked_ordinal_hangs_until_the_engine_is_closed() -> None:
    engine = ScriptedEngine(hang_on={5})
    outcome: list[bool] = []
    thread = threading.Thread(target=lambda: outcome.append(_fails(engine, Job(audio=noise(8), ordinal=5))))
    thread.start()
    thread.join(timeout=0.05)
    assert thread.is_alive()
    engine.close()
    thread.join(timeout=5)
    assert outcome == [True]


def test_a_marked_ordinal_ends_the_process() -> None:
    script = (
        "import numpy as np\n"
        "from services.asr_worker.engines.base import Job\n"
        "from services.asr_worker.engines.scripted import ScriptedEngine\n"
        "engine = ScriptedEngine(exit_on=[4])\n"
        "for ordinal in range(9):\n"
        "    engine.transcribe(Job(audio=np.zeros(8, np.float32), ordinal=ordinal))\n"
        "    print(ordinal, flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert ended.returncode == EXIT_CODE
    assert ended.stdout.split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_audio_that_is_not_finite_is_an_engine_error(number: float) -> None:
    audio = noise(SAMPLE_RATE).copy()
    audio[100] = number
    assert _fails(ScriptedEngine(), Job(audio=audio))


def _fails(engine: ScriptedEngine, job: Job) -> bool:
    try:
        engine.transcribe(job)
    except EngineError:
        return True
    return False

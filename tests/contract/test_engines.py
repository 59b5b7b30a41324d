"""What every engine must do, over the scripted one and real Moonshine; and what Moonshine must do besides."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from services.asr_worker.engines import moonshine
from services.asr_worker.engines.base import Engine, Hypothesis, Job
from services.asr_worker.engines.registry import ENGINES, load_engine, probe
from shared.audio import SAMPLE_RATE, Floats, pcm16_to_float
from shared.errors import EngineError
from tests.speech import normalised_words, packaged_speech


@pytest.fixture(scope="module", params=["scripted", "sherpa"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    built = load_engine(request.param)
    yield built
    built.close()


@pytest.fixture(scope="module")
def sherpa() -> Iterator[Engine]:
    built = load_engine("sherpa", slots=2)
    yield built
    built.close()


@pytest.fixture(scope="module")
def speech() -> Floats:
    return pcm16_to_float(packaged_speech("two_cities.wav"))


def white_noise(seconds: float, level: float = 0.1) -> Floats:
    values = np.random.default_rng(0).normal(0, level, int(seconds * SAMPLE_RATE))
    return np.clip(values, -1, 1).astype(np.float32)


AUDIO = {
    "empty": np.zeros(0, dtype=np.float32),
    "one sample": np.ones(1, dtype=np.float32),
    "10 ms": white_noise(0.01),
    "0.3 s": white_noise(0.3),
    "31 s": white_noise(31),
    "two minutes": white_noise(120),
    "digital silence": np.zeros(SAMPLE_RATE, dtype=np.float32),
    "NaN": np.full(SAMPLE_RATE, np.nan, dtype=np.float32),
    "one NaN": np.concatenate([white_noise(1), np.full(1, np.nan, dtype=np.float32), white_noise(1)]),
    "infinity": np.full(SAMPLE_RATE, np.inf, dtype=np.float32),
    "largest float": np.full(SAMPLE_RATE, np.finfo(np.float32).max, dtype=np.float32),
    "clipping noise": white_noise(3, level=5),
    "two channels": np.zeros((SAMPLE_RATE, 2), dtype=np.float32),
    "doubles": white_noise(1).astype(np.float64),
    "every other sample": white_noise(2)[::2],
    "read only": pcm16_to_float(bytes(2 * SAMPLE_RATE)),
}


def outcome(engine: Engine, job: Job) -> Hypothesis | None:
    try:
        return engine.transcribe(job)
    except EngineError:
        return None


def test_traits_are_sane(engine: Engine) -> None:
    traits = engine.traits
    assert traits.name
    assert traits.slots >= 1
    assert 1 <= traits.max_audio_s <= 300
    assert all(code.islower() and len(code) in (2, 3) for code in traits.languages)


@pytest.mark.parametrize("name", AUDIO)
@pytest.mark.parametrize("final", [True, False], ids=["final", "partial"])
def test_any_audio_gives_a_hypothesis_or_an_engine_error(engine: Engine, name: str, final: bool) -> None:
    heard = outcome(engine, Job(audio=AUDIO[name], final=final))
    assert heard is None or (isinstance(heard.text, str) and heard.language == "en")
    if name in ("NaN", "one NaN", "infinity", "largest float", "two channels"):
        assert heard is None
    if name in ("empty", "digital silence"):
        assert heard is not None
        assert heard.text == ""


def test_a_call_leaves_its_audio_as_it_was(engine: Engine, speech: Floats) -> None:
    audio = speech[: 2 * SAMPLE_RATE].copy()
    engine.transcribe(Job(audio=audio))
    assert np.array_equal(audio, speech[: 2 * SAMPLE_RATE])


def test_four_threads_hear_what_one_hears(engine: Engine, speech: Floats) -> None:
    jobs = [Job(audio=speech[i * SAMPLE_RATE : (i + 3) * SAMPLE_RATE], ordinal=i) for i in range(0, 24, 2)]
    one_by_one = [engine.transcribe(job) for job in jobs]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(engine.transcribe, jobs)) == one_by_one
    assert len({hypothesis.text for hypothesis in one_by_one}) == len(jobs)


@pytest.mark.parametrize("name", ["scripted", "sherpa"])
def test_a_closed_engine_refuses_and_may_be_closed_twice(name: str) -> None:
    built = load_engine(name)
    built.close()
    built.close()
    assert outcome(built, Job(audio=white_noise(1))) is None


# --- the registry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_of_the_table_says_whether_it_can_run(name: str) -> None:
    assert probe(name) is None


def test_an_unknown_engine_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="no engine 'whisper'; there are packaged, scripted, sherpa"):
        load_engine("whisper")
    with pytest.raises(ValueError, match="no engine 'whisper'"):
        probe("whisper")


def test_probing_loads_no_native_library_and_only_the_module_asked_for() -> None:
    script = (
        "import sys\n"
        "from services.asr_worker.engines.registry import probe\n"
        "probe('scripted')\n"
        "assert 'services.asr_worker.engines.sherpa' not in sys.modules\n"
        "assert probe('packaged') is None\n"
        "print([name for name in sys.modules if 'sherpa_onnx' in name or 'moonshine_voice' in name])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout.strip() == "[]"


# --- Moonshine's files: sherpa-onnx would end this process on a bad one ------------------------------------


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    for name in moonshine.ASSETS:
        (tmp_path / name).write_bytes((moonshine.packaged_folder() / name).read_bytes())
    return tmp_path


def test_a_missing_file_is_named_before_anything_is_built(model_copy: Path) -> None:
    (model_copy / moonshine.DECODER).unlink()
    assert "decoder_model_merged.ort is missing" in str(moonshine.why_not(model_copy))
    with pytest.raises(moonshine.ModelUnavailable, match=r"decoder_model_merged\.ort is missing"):
        load_engine("sherpa", model_folder=model_copy)


def test_a_file_of_another_size_is_refused(model_copy: Path) -> None:
    with (model_copy / moonshine.ENCODER).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(moonshine.ModelUnavailable, match="has 1000 bytes instead of"):
        load_engine("sherpa", model_folder=model_copy)


@pytest.mark.parametrize("name", moonshine.ASSETS)
def test_one_wrong_byte_is_refused(model_copy: Path, name: str) -> None:
    with (model_copy / name).open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(moonshine.ModelUnavailable, match="damaged"):
        load_engine("sherpa", model_folder=model_copy)


def test_the_tokens_are_written_for_sherpa_and_removed_again() -> None:
    with moonshine.verified_files() as files:
        lines = files.tokens.read_text("ascii").splitlines()
    assert not files.tokens.exists()
    assert len(lines) == 32_768
    assert lines[1] == "PHM+ 1"  # base64 of <s>


@pytest.mark.parametrize("cut", [b"\x03ab", b"\x80", b"\x80\x01" + bytes(127)])
def test_a_cut_tokenizer_is_refused(cut: bytes) -> None:
    with pytest.raises(moonshine.ModelUnavailable, match="cut off"):
        moonshine.read_tokens(b"\x01a" + cut)


def test_a_token_length_of_two_bytes_is_read() -> None:
    assert moonshine.read_tokens(b"\x80\x01" + bytes(128) + b"\x01a") == [bytes(128), b"a"]


# --- what Moonshine hears -----------------------------------------------------------------------------------


def test_packaged_speech_is_recognised(sherpa: Engine, speech: Floats) -> None:
    text = sherpa.transcribe(Job(audio=speech[: 10 * SAMPLE_RATE])).text
    expected = set(normalised_words("it was the best worst of times age wisdom foolishness"))
    assert len(expected & set(normalised_words(text))) >= 0.8 * len(expected)


def test_quiet_speech_is_still_recognised(sherpa: Engine, speech: Floats) -> None:
    snippet = speech[: 10 * SAMPLE_RATE]
    quiet = snippet * np.float32(0.001 / np.sqrt(np.mean(snippet**2)))  # -60 dBFS
    assert "best of times" in sherpa.transcribe(Job(audio=quiet)).text.lower()


@pytest.mark.parametrize("level_db", [-80, -60, -40, -20])
@pytest.mark.parametrize("seconds", [0.1, 1, 4])
def test_steady_noise_gives_no_text(sherpa: Engine, level_db: int, seconds: float) -> None:
    assert sherpa.transcribe(Job(audio=white_noise(seconds, 10 ** (level_db / 20)))).text == ""


def test_hum_on_an_offset_gives_no_text(sherpa: Engine) -> None:
    t = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    hum = (0.2 + 0.05 * np.sin(2 * np.pi * 50 * t)).astype(np.float32)
    assert sherpa.transcribe(Job(audio=hum)).text == ""


def test_a_microphones_offset_does_not_hide_speech(sherpa: Engine, speech: Floats) -> None:
    shifted = speech[: 5 * SAMPLE_RATE] + np.float32(0.3)
    assert "best of times" in sherpa.transcribe(Job(audio=shifted)).text.lower()


def test_short_audio_reaches_the_model_in_the_middle_of_half_a_second(
    sherpa: Engine, speech: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Floats] = []

    def decode(audio: Floats) -> str:
        decoded.append(audio)
        return ""

    monkeypatch.setattr(sherpa, "_decode", decode)
    short = speech[SAMPLE_RATE : SAMPLE_RATE + 4800]
    sherpa.transcribe(Job(audio=short))
    sherpa.transcribe(Job(audio=speech[: 2 * SAMPLE_RATE]))
    assert [audio.size for audio in decoded] == [SAMPLE_RATE // 2, 2 * SAMPLE_RATE]
    assert np.array_equal(decoded[0][1600:6400], short)


def test_noise_around_speech_keeps_the_speech(sherpa: Engine, speech: Floats) -> None:
    audio = white_noise(8, 0.003)
    audio[2 * SAMPLE_RATE : 6 * SAMPLE_RATE] += speech[: 4 * SAMPLE_RATE]
    assert "best of times" in sherpa.transcribe(Job(audio=audio)).text.lower()

"""One suite over every detector, and what only the real Silero can show."""

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

from services.vad_worker.detectors import silero
from services.vad_worker.detectors.base import WINDOW, Detector, Window
from services.vad_worker.detectors.registry import DETECTORS, load_detector
from services.vad_worker.offline import claimed_pcm, segment_pcm
from services.vad_worker.windows import Windows
from shared.audio import BYTES_PER_SAMPLE, SAMPLE_RATE, ms_to_samples, pcm16_to_float
from shared.errors import PermanentError
from shared.messages import Segment, SessionSettings, Started, VadFinished, pack

SID = "sess_" + "A" * 21


@pytest.fixture(scope="module", params=sorted(DETECTORS))
def detector(request: pytest.FixtureRequest) -> Detector:
    return load_detector(request.param)


@pytest.fixture(scope="module")
def real() -> Detector:
    return load_detector("silero")


@pytest.fixture(scope="module")
def speech() -> bytes:
    """44 s of a man reading, with pauses."""
    spec = find_spec("moonshine_voice")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "assets" / "two_cities.wav"
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    return b"".join(frame.to_ndarray().tobytes() for frame in [*frames, *resampler.resample(None)])


def windows_of(pcm: bytes) -> list[Window]:
    return [window for _, window, _ in Windows().push(0, pcm)]


def judge(detector: Detector, windows: list[Window]) -> list[float]:
    state = detector.fresh()
    return [detector.detect([state], [window])[0] for window in windows]


# --- every detector -------------------------------------------------------------------------------------


def test_results_do_not_depend_on_the_batch(detector: Detector, speech: bytes) -> None:
    """Bit for bit, for batches of 1 to 33 sessions that are at different places."""
    windows = windows_of(speech[: SAMPLE_RATE * BYTES_PER_SAMPLE * 4])
    alone = judge(detector, windows)
    sessions = 33
    states = [detector.fresh() for _ in range(sessions)]
    results: list[list[float]] = [[] for _ in range(sessions)]
    for step in range(len(windows)):
        # Each session starts one step later than the one before, and sometimes misses a turn.
        going = [i for i in range(sessions) if len(results[i]) <= step - i and (i + step) % 7]
        if going:
            batch = detector.detect([states[i] for i in going], [windows[len(results[i])] for i in going])
            for i, prob in zip(going, batch, strict=True):
                results[i].append(prob)
    assert len(results[0]) > 50
    assert all(result == alone[: len(result)] for result in results)


def test_a_packed_state_goes_on_the_same(detector: Detector, speech: bytes) -> None:
    windows = windows_of(speech[: SAMPLE_RATE * BYTES_PER_SAMPLE * 2])
    state = detector.fresh()
    results: list[float] = []
    for window in windows:
        packed = state.pack()
        state = detector.load(packed)
        assert state.pack() == packed
        results += detector.detect([state], [window])
    assert results == judge(detector, windows)


def test_probabilities_are_probabilities(detector: Detector, speech: bytes) -> None:
    for prob in judge(detector, windows_of(speech[:64_000])):
        assert isinstance(prob, float)
        assert 0.0 <= prob <= 1.0


def test_no_sessions_are_no_work(detector: Detector) -> None:
    assert detector.detect([], []) == []


def test_as_many_windows_as_states(detector: Detector) -> None:
    with pytest.raises(ValueError):
        detector.detect([detector.fresh()], [])


def test_hashes_tell_detectors_apart() -> None:
    assert len({load_detector(name).hash for name in DETECTORS}) == len(DETECTORS)


# --- registry -------------------------------------------------------------------------------------------


def test_unknown_detector_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="silero, energy"):
        load_detector("webrtc")


def test_silero_comes_without_the_package_that_carries_it(real: Detector) -> None:
    assert real.hash
    assert "silero_vad" not in sys.modules
    assert "torch" not in sys.modules


# --- the real model -------------------------------------------------------------------------------------


def test_model_file_is_checked_before_it_is_loaded(tmp_path: Path) -> None:
    good = silero.model_bytes(silero.find_model())
    assert hashlib.sha256(good).hexdigest() == silero.SHA256
    bad = tmp_path / silero.MODEL
    bad.write_bytes(good[:-1] + b"\0")
    with pytest.raises(PermanentError, match="not the silero_vad_16k_op15"):
        silero.model_bytes(bad)
    with pytest.raises(PermanentError, match="cannot read"):
        silero.model_bytes(tmp_path / "absent")


def test_a_missing_package_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silero.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PermanentError, match="not installed"):
        load_detector("silero")


def test_a_state_of_another_size_is_refused(real: Detector) -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        real.load(b"\0" * 12)


def test_speech_is_speech_and_silence_is_not(real: Detector, speech: bytes) -> None:
    heard = judge(real, windows_of(speech))
    assert np.mean(np.array(heard) > 0.5) > 0.6
    assert max(judge(real, windows_of(bytes(SAMPLE_RATE * BYTES_PER_SAMPLE * 3)))) < 0.1
    noise = np.random.default_rng(1).normal(0, 300, SAMPLE_RATE * 3).astype("<i2").tobytes()
    assert max(judge(real, windows_of(noise))) < 0.3


def test_known_probabilities(real: Detector, speech: bytes) -> None:
    """If another release of model or runtime gives other values, a replay cuts differently: then say so."""
    first_word = judge(real, windows_of(speech)[:41])[36:]
    assert first_word == pytest.approx([0.0041, 0.1060, 0.9016, 0.9952, 0.9991], abs=1e-3)


def test_a_recording_is_cut_into_its_sentences(real: Detector, speech: bytes) -> None:
    events = segment_pcm(speech, SessionSettings(silence_ms=300), real, session_id=SID)
    segments = [event for event in events if isinstance(event, Segment)]
    assert 3 <= len(segments) <= 15
    assert isinstance(events[-1], VadFinished)
    assert events[-1].ordinals == len(segments)
    assert sum(isinstance(event, Started) for event in events) == len(segments)
    loud = [np.sqrt(np.mean(pcm16_to_float(claimed_pcm(speech, s.claim)) ** 2)) for s in segments]
    assert min(loud) > 0.01
    assert all(len(claimed_pcm(speech, s.claim)) == s.claim.n * BYTES_PER_SAMPLE for s in segments)


def test_equal_recordings_give_equal_bytes(real: Detector, speech: bytes) -> None:
    speech = speech[: 20 * SAMPLE_RATE * BYTES_PER_SAMPLE]
    once, again = (segment_pcm(speech, SessionSettings(), real, session_id=SID) for _ in range(2))
    assert [pack(event) for event in once] == [pack(event) for event in again]
    other = segment_pcm(speech, SessionSettings(), real, session_id=SID, frame_samples=333)
    assert [event.at.sample for event in other] == [event.at.sample for event in once]


def test_a_second_of_zeros_ends_an_item_of_the_default_silence(real: Detector, speech: bytes) -> None:
    """The vendor's samples send 0.96 s of zeros after their speech and expect the end of the item."""
    first = next(e for e in segment_pcm(speech, SessionSettings(), real) if isinstance(e, Segment))
    word_end = (first.end - ms_to_samples(800)) * BYTES_PER_SAMPLE
    pcm = speech[:word_end] + bytes(15_360 * BYTES_PER_SAMPLE)
    [segment] = [e for e in segment_pcm(pcm, SessionSettings(), real) if isinstance(e, Segment)]
    assert segment.cause == "silence"
    assert segment.end < word_end // BYTES_PER_SAMPLE + ms_to_samples(800) + 2 * WINDOW

"""The converter: chunking changes nothing, lengths add up, no position runs ahead of the output."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingress.resample import Converter
from shared.messages import AudioFormat

RATES = (8_000, 16_000, 24_000, 48_000, 44_100, 11_025)


def converter(rate: int) -> Converter:
    return Converter(AudioFormat(sample_rate=rate))


def noise(samples: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(-32768, 32767, samples, dtype="<i2").tobytes()


def convert(rate: int, data: bytes, sizes: list[int]) -> bytes:
    made = converter(rate)
    out, at = bytearray(), 0
    for size in itertools.chain(sizes, [len(data)]):
        out += made.feed(data[at : at + size])
        at += size
    return bytes(out + made.flush())


@settings(deadline=None, max_examples=60)
@given(
    rate=st.sampled_from(RATES),
    samples=st.integers(0, 3000),
    odd=st.booleans(),
    sizes=st.lists(st.integers(0, 700), max_size=40),
)
def test_chunking_changes_nothing_and_the_length_is_exact(
    rate: int, samples: int, odd: bool, sizes: list[int]
) -> None:
    data = noise(samples) + b"x" * odd
    whole = convert(rate, data, [])
    assert convert(rate, data, sizes) == whole
    assert len(whole) == 2 * int(np.floor(samples * 16_000 / rate + 0.5))


def test_16_khz_passes_through_byte_for_byte() -> None:
    data = noise(5000)
    made = converter(16_000)
    assert made.feed(data[:3333]) == data[:3332]
    assert made.feed(data[3333:]) == data[3332:]
    assert made.flush() == b""
    assert made.consumed == len(data)


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000, 44_100])
def test_a_tone_keeps_its_pitch_and_loudness(rate: int) -> None:
    t = np.arange(rate) / rate
    tone = (8000 * np.sin(2 * np.pi * 440 * t)).astype("<i2").tobytes()
    out = np.frombuffer(convert(rate, tone, [640] * 50), dtype="<i2").astype(float)
    wanted = 8000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    middle = slice(2000, 14_000)
    assert np.abs(out[middle] - wanted[middle]).max() < 40


@settings(deadline=None, max_examples=40)
@given(rate=st.sampled_from(RATES), sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_consumed_never_runs_ahead_of_the_output_and_ends_exact(rate: int, sizes: list[int]) -> None:
    made, fed, out, before = converter(rate), 0, 0, 0
    for size in sizes:
        out += len(made.feed(bytes(size))) // 2
        fed += size
        assert before <= made.consumed <= fed
        assert made.consumed <= made.source_bytes(out)
        before = made.consumed
    made.flush()
    assert made.consumed == fed


def test_after_a_flush_a_new_stretch_starts_as_if_the_converter_were_new() -> None:
    made = converter(8_000)
    first, second = noise(900, 1) + b"\x01", noise(700, 2)
    for stretch in (first, second):
        assert made.feed(stretch) + made.flush() == convert(8_000, stretch, [])
    assert made.consumed == len(first) + len(second)


def test_positions_go_on_over_converters_and_over_bytes_without_audio() -> None:
    made = Converter(AudioFormat(sample_rate=16_000), consumed=1000)
    made.skip(44)
    made.feed(noise(10))
    assert made.consumed == 1064


@pytest.mark.parametrize(
    "wrong",
    [AudioFormat(codec="opus"), AudioFormat(sample_rate=0), AudioFormat(sample_rate=96_000)],
)
def test_formats_that_it_cannot_convert_are_refused_at_once(wrong: AudioFormat) -> None:
    with pytest.raises(ValueError):
        Converter(wrong)

"""Opus in: the same speech comes out however it is cut, and what is no Opus is told and harms nothing."""

import random
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingress import opus
from services.ingress.intake import Undecodable, converter_for
from services.ingress.opus import OpusConverter
from shared.audio import SAMPLE_RATE
from shared.messages import AudioFormat
from tests.opus import ogg_opus, opus_head, page, raw_packets, stream
from tests.speech import packaged_speech

OPUS = AudioFormat(codec="opus")
SECONDS = 6


@cache
def speech() -> bytes:
    return packaged_speech("two_cities.wav")[: 2 * SAMPLE_RATE * SECONDS]


@cache
def file() -> bytes:
    return ogg_opus(speech())


@cache
def packets() -> list[bytes]:
    return raw_packets(speech())


def decode(appends: Sequence[bytes]) -> bytes:
    made = OpusConverter(OPUS)
    out = b"".join(made.feed(data) for data in appends)
    return out + made.flush()


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [piece for piece in [*pieces, data[at:]] if piece]


def likeness(pcm: bytes, wanted: bytes) -> float:
    """Correlation at the best of the first 40 ms of delay."""
    heard, said = (np.frombuffer(data, dtype="<i2").astype(float) for data in (pcm, wanted))
    size = min(len(heard), len(said)) - 640
    return float(max(np.corrcoef(heard[lag : lag + size], said[:size])[0, 1] for lag in range(640)))


# --- speech -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_speech_survives(layout: str) -> None:
    for appends in ([ogg_opus(speech(), layout=layout)], raw_packets(speech(), layout=layout)):
        heard = decode(appends)
        assert abs(len(heard) - len(speech())) <= 2 * SAMPLE_RATE * 60 // 1000
        assert likeness(heard, speech()) > 0.97


def test_ogg_and_raw_packets_are_the_same_audio() -> None:
    raw, ogg = decode(packets()), decode([file()])
    assert raw.endswith(ogg), "but for the samples that the header says are to be skipped"
    assert len(raw) - len(ogg) == 2 * (312 * SAMPLE_RATE // 48_000)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 3000), max_size=40))
def test_however_ogg_is_cut_the_same_audio_comes_out(sizes: list[int]) -> None:
    assert decode(cut(file(), sizes)) == decode([file()])


def test_byte_by_byte() -> None:
    short = ogg_opus(speech()[: 2 * SAMPLE_RATE])
    assert decode(cut(short, [1] * len(short))) == decode([short])


def test_much_audio_comes_a_second_at_a_time() -> None:
    sizes = [len(piece) for piece in OpusConverter(OPUS).pieces(file())]
    assert len(sizes) in (SECONDS, SECONDS + 1)
    assert max(sizes) <= 2 * SAMPLE_RATE * 1.12


def test_across_a_flush_the_stream_goes_on() -> None:
    made, half = OpusConverter(OPUS), len(file()) // 2
    assert made.feed(file()[:half]) + made.flush() + made.feed(file()[half:]) + made.flush() == decode(
        [file()]
    )


# --- Ogg ----------------------------------------------------------------------------------------------------


def test_the_tail_of_a_file_that_was_cut_off_is_heard() -> None:
    whole = decode([file()])
    cut_off = decode([file()[: len(file()) * 9 // 10]])
    assert whole.startswith(cut_off)
    assert len(cut_off) > 0.85 * len(whole)


def test_one_file_after_the_other() -> None:
    """Chained, appended as they come, and after one that was cut off."""
    whole = decode([file()])
    assert decode([file() + file()]) == decode([file(), file()]) == 2 * whole
    cut_off = file()[: len(file()) * 9 // 10]
    assert decode([cut_off, file()]) == decode([cut_off]) + whole


def test_pre_skip_and_gain() -> None:
    plain = decode([stream(packets())])
    assert decode([stream(packets(), opus_head(pre_skip=4800))]) == plain[2 * 1600 :]
    louder = np.frombuffer(decode([stream(packets(), opus_head(gain_db=6))]), dtype="<i2").astype(float)
    ratio = np.abs(louder).mean() / np.abs(np.frombuffer(plain, dtype="<i2").astype(float)).mean()
    assert ratio == pytest.approx(2.0, rel=0.01)


# --- positions ----------------------------------------------------------------------------------------------


def test_raw_packets_are_counted() -> None:
    made = converter_for(OPUS, 100)
    for data in packets()[:7]:
        assert all(made.pieces(data))
    assert made.consumed == 107
    assert made.flush() == b""
    assert made.src_rate == 0


def test_of_ogg_the_position_is_the_page_from_which_it_can_be_sent_again() -> None:
    made, out = OpusConverter(OPUS, 1000), b""
    whole = decode([file()])
    for piece in cut(file(), [700] * 40):
        out += made.feed(piece)
        at = made.consumed - 1000
        assert at == len(file()) or file()[at : at + 4] == b"OggS"
        again = decode([file()[at:]])
        assert abs(len(out) + len(again) - len(whole)) <= 2 * 312, "nothing is lost, nothing comes twice"
    assert made.consumed == 1000 + len(file())


# --- what is no Opus ----------------------------------------------------------------------------------------


def refused(made: OpusConverter, data: bytes) -> bytes:
    """What came out before it said so."""
    out = bytearray()
    with pytest.raises(Undecodable, match="Invalid audio"):
        _gather(made.pieces(data), out)
    return bytes(out)


def _gather(pieces: Iterable[bytes], out: bytearray) -> None:
    for piece in pieces:
        out += piece


@pytest.mark.parametrize(
    "garbage", [b"\xff", b"\x03", b"O", bytes([3, 63]) + bytes(900), b"RIFF\0\0\0\0WAVE"]
)
def test_a_packet_that_is_none_is_told_and_the_next_is_heard(garbage: bytes) -> None:
    made = OpusConverter(OPUS)
    made.feed(packets()[0])
    assert refused(made, garbage) == b""
    assert made.feed(packets()[1])
    assert made.consumed == 3


def test_garbage_at_the_beginning_does_not_decide_over_what_follows() -> None:
    made = OpusConverter(OPUS)
    assert made.feed(b"Og") == b""
    refused(made, b"no page")
    refused(made, b"\xff")
    assert likeness(made.feed(file()) + made.flush(), speech()) > 0.97


def test_garbage_between_pages_is_told_and_the_pages_are_heard() -> None:
    made, pages = OpusConverter(OPUS), stream(packets())
    tail = page(packets()[:5])
    heard = refused(made, pages + b"garbage" + tail)
    assert len(heard) == len(decode([pages])) + 5 * 640
    assert made.feed(tail)
    assert made.consumed == len(pages) + 7 + 2 * len(tail)


@pytest.mark.parametrize("bad", [b"", b"\xff\xff\xff"])
def test_a_bad_packet_in_a_page_is_told_and_the_others_are_heard(bad: bytes) -> None:
    """libopus would make up 120 ms of audio for an empty one."""
    made = OpusConverter(OPUS)
    made.feed(stream(packets()[:10]))
    assert len(refused(made, page([packets()[10], bad, packets()[11]]))) == 2 * 640


def test_a_page_with_a_wrong_checksum_is_left_out() -> None:
    made, bad = OpusConverter(OPUS), bytearray(page(packets()[10:15]))
    bad[-1] ^= 1
    heard = refused(made, stream(packets()[:10]) + bytes(bad) + page(packets()[15:20]))
    assert len(heard) == 15 * 640


@pytest.mark.parametrize(
    "head", [opus_head(6, family=1), opus_head(3), b"OpusHead\x10" + bytes(10), b"OpusHead"]
)
def test_streams_that_cannot_be_decoded_are_told_once(head: bytes) -> None:
    made = OpusConverter(OPUS)
    assert refused(made, stream(packets(), head)) == b""
    assert made.feed(page(packets()[:5])) == b""
    assert made.feed(stream(packets())), "and the next stream is heard"


def test_ogg_without_opus_is_told() -> None:
    refused(OpusConverter(OPUS), page([b"\x01vorbis"], flags=2) + page([b"\xff\xff", b""]))


def test_an_append_may_not_hold_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opus, "MAX_APPEND_S", 10)
    silence = bytes([0b11111011, 6])  # six frames of 20 ms without a byte
    days = stream([silence] * 50_000)
    made = OpusConverter(OPUS)
    heard = refused(made, days)
    assert 10 <= len(heard) / 2 / SAMPLE_RATE <= 13
    assert len(made.feed(page([silence]))) == 2 * SAMPLE_RATE * 120 // 1000, "the rest is forgotten"


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.binary(max_size=80) | st.sampled_from([b"OggS", page([b""]), page([opus_head()], flags=2)]))
)
def test_whatever_comes_nothing_but_undecodable_is_raised(appends: list[bytes]) -> None:
    made = OpusConverter(OPUS)
    for data in filter(None, appends):
        before = made.consumed
        try:
            made.feed(data)
        except Undecodable:
            pass
        assert made.consumed >= before
    made.flush()


def test_mutilated_files() -> None:
    chance = random.Random(7)
    for _ in range(40):
        data = bytearray(file())
        for _ in range(chance.randrange(1, 200)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        made = OpusConverter(OPUS)
        for piece in cut(bytes(data), [chance.randrange(1, 2000) for _ in range(30)]):
            try:
                made.feed(piece)
            except Undecodable:
                pass
        made.flush()

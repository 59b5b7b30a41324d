"""The codec: maps, unknown fields tolerated, unknown kinds refused, equal messages equal bytes."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadMessage
from shared.messages import (
    At,
    Audio,
    Claim,
    Finished,
    Outcome,
    Segment,
    frame_sequences,
    pack,
    read_record,
    read_vad_event,
    unpack,
)

COMMON = {"ep": 1, "ix": 2, "prev": 3, "pos": 4}


def segment() -> Segment:
    claim = Claim(stream="AUDIO_LIVE", frames=(100, 1, 3), offset=5, n=7)
    at = At(seq=9, sample=10)
    return Segment(ev=1, closed=1, at=at, k=0, item="i", start=0, end=7, cause="silence", claim=claim)


def test_records_are_maps_and_come_back_equal() -> None:
    record = Audio(**COMMON, n=2, pcm=b"\x00\x01\x02\x03")
    raw = msgpack.unpackb(pack(record))
    assert raw["kind"] == "audio"
    assert raw["pcm"] == b"\x00\x01\x02\x03"
    assert read_record(pack(record)) == record


def test_events_come_back_equal_and_equal_ones_give_equal_bytes() -> None:
    assert read_vad_event(pack(segment())) == segment()
    assert pack(segment()) == pack(segment())


def test_fields_of_a_later_release_are_ignored_and_missing_ones_have_defaults() -> None:
    raw = msgpack.unpackb(pack(Finished(**COMMON, reason="client")))
    raw["new_field"] = {"x": 1}
    del raw["discard"]
    assert read_record(msgpack.packb(raw)) == Finished(**COMMON, reason="client")


def test_a_kind_of_a_later_release_is_refused() -> None:
    raw = msgpack.unpackb(pack(Finished(**COMMON, reason="client")))
    with pytest.raises(BadMessage, match="kind"):
        read_record(msgpack.packb({**raw, "kind": "hologram"}))


@pytest.mark.parametrize("field", ["ep", "prev", "reason"])
def test_a_missing_field_is_refused(field: str) -> None:
    raw = msgpack.unpackb(pack(Finished(**COMMON, reason="client")))
    del raw[field]
    with pytest.raises(BadMessage, match=field):
        read_record(msgpack.packb(raw))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(BadMessage):
        read_record(data)
    with pytest.raises(BadMessage):
        unpack(Outcome, data)


@given(st.lists(st.integers(1, 1 << 40), min_size=1, unique=True).map(sorted))
def test_frame_sequences_undo_their_differences(sequences: list[int]) -> None:
    deltas = [later - earlier for earlier, later in zip([0, *sequences], sequences, strict=False)]
    claim = Claim(stream="s", frames=tuple(deltas), offset=0, n=1)
    assert frame_sequences(claim) == sequences

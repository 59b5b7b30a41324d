"""Session ids carry their place; item ids are keyed by the session."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.sessions import LANES, MAX_PARTITIONS, Lane, item_id, new_session_id, place_of


@given(st.sampled_from(LANES), st.integers(0, MAX_PARTITIONS - 1))
def test_an_id_tells_its_place(lane: Lane, partition: int) -> None:
    sid = new_session_id(lane, partition)
    assert re.fullmatch(r"sess_[A-Za-z0-9_-]{21}", sid)
    assert place_of(sid) == (lane, partition)


@pytest.mark.parametrize("partition", [-1, MAX_PARTITIONS])
def test_a_partition_out_of_range_is_refused(partition: int) -> None:
    with pytest.raises(ValueError, match="partition"):
        new_session_id("live", partition)


@given(st.text(max_size=40))
def test_what_is_no_id_is_refused_and_never_crashes(text: str) -> None:
    try:
        place_of(text)
    except ValueError:
        return
    assert re.fullmatch(r"sess_[A-Za-z0-9_-]{21}", text)


def test_a_trailing_newline_is_no_id() -> None:
    with pytest.raises(ValueError, match="not a session id"):
        place_of(new_session_id("live", 1) + "\n")


def test_ids_do_not_repeat() -> None:
    assert len({new_session_id("live", 7) for _ in range(1000)}) == 1000


def test_item_ids_are_stable_and_belong_to_their_session() -> None:
    a, b = new_session_id("live", 1), new_session_id("live", 1)
    assert item_id(a, 3) == item_id(a, 3)
    assert len({item_id(a, 0), item_id(a, 1), item_id(b, 0)}) == 3
    assert re.fullmatch(r"item_[A-Za-z0-9_-]{21}", item_id(a, 0))

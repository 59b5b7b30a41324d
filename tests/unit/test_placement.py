"""Partitions over workers: everybody computes the same, shares are even, and little moves."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.vad_worker.placement import assign

members = st.sets(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=8)


def test_nobody_owns_anything_without_members() -> None:
    assert assign([], 8) == {}


@given(members, st.integers(1, 64))
def test_every_partition_has_one_owner_and_nobody_more_than_its_share(names: set[str], count: int) -> None:
    owners = assign(sorted(names), count)
    assert sorted(owners) == list(range(count))
    assert max(Counter(owners.values()).values()) <= -(-count // len(names))


@given(members, st.integers(1, 64))
def test_the_order_of_members_does_not_matter(names: set[str], count: int) -> None:
    assert assign(sorted(names), count) == assign(sorted(names, reverse=True), count)


def test_a_worker_that_leaves_moves_few_partitions_of_others() -> None:
    before = assign(["a", "b", "c", "d"], 32)
    after = assign(["a", "b", "c"], 32)
    moved = [p for p in before if before[p] != "d" and before[p] != after[p]]
    assert len(moved) <= 8

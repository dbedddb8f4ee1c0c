"""One batch at a time; what arrives meanwhile is the next one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.net.batches import Batches


def test_idle_begins_at_once_and_busy_gathers() -> None:
    batches: Batches[int] = Batches(1000)
    batches.put(1, 1)
    assert batches.begin() == [1]
    for i in (2, 3, 4):
        batches.put(i, 1)
    assert batches.begin() == []
    batches.end()
    assert batches.begin() == [2, 3, 4]
    batches.end()
    assert batches.begin() == []
    assert not batches.is_busy


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 100), st.integers(1, 500))
def test_what_was_taken_comes_out_in_order_within_the_limits(sizes: list[int], cut: int, limit: int) -> None:
    batches: Batches[int] = Batches(limit, cut)
    taken = [i for i, size in enumerate(sizes) if batches.put(i, size)]
    assert batches.waiting_bytes == sum(sizes[i] for i in taken)
    assert batches.waiting_bytes <= max(limit, sizes[0] if sizes else 0)
    assert batches.dropped == len(sizes) - len(taken)
    found = []
    while batch := batches.begin():
        assert len(batch) == 1 or sum(sizes[i] for i in batch) <= cut
        found += batch
        batches.end()
    assert found == taken
    assert batches.waiting_bytes == 0


def test_drain_gives_up_what_waits() -> None:
    batches: Batches[str] = Batches(10)
    batches.put("a", 5)
    batches.put("b", 5)
    assert not batches.put("c", 1)
    assert batches.drain() == ["a", "b"]
    assert batches.put("d", 10)


@pytest.mark.parametrize("size", [11, 1000])
def test_one_item_over_the_limit_goes_alone(size: int) -> None:
    batches: Batches[str] = Batches(10, 10)
    assert batches.put("a", size)
    assert batches.begin() == ["a"]

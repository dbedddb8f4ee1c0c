import gevent
import gevent.event
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.net.gather import Gatherer


def test_idle_sends_at_once_and_busy_gathers() -> None:
    batches: list[list[int]] = []
    is_free = gevent.event.Event()

    def send(batch: list[int]) -> None:
        batches.append(batch)
        is_free.wait()

    gatherer: Gatherer[int] = Gatherer(send, 1000)
    greenlet = gevent.spawn(gatherer.run)
    gatherer.put(1, 1)
    gevent.sleep(0)
    gevent.sleep(0)
    assert batches == [[1]]
    for i in (2, 3, 4):
        gatherer.put(i, 1)
    gevent.sleep(0)
    assert batches == [[1]]  # one send at a time
    is_free.set()
    gevent.sleep(0)
    gevent.sleep(0)
    assert batches == [[1], [2, 3, 4]]
    greenlet.kill()


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 100), st.integers(1, 500))
def test_what_was_taken_comes_out_in_order_within_the_limits(sizes: list[int], cut: int, limit: int) -> None:
    gatherer: Gatherer[int] = Gatherer(lambda batch: None, limit, cut)
    taken = [i for i, size in enumerate(sizes) if gatherer.put(i, size)]
    assert gatherer.waiting_bytes == sum(sizes[i] for i in taken)
    assert gatherer.waiting_bytes <= max(limit, sizes[0] if sizes else 0)
    assert gatherer.dropped == len(sizes) - len(taken)
    found = []
    while batch := gatherer.take():
        assert len(batch) == 1 or sum(sizes[i] for i in batch) <= cut
        found += batch
    assert found == taken
    assert gatherer.waiting_bytes == 0


def test_drain_gives_up_what_waits() -> None:
    gatherer: Gatherer[str] = Gatherer(lambda batch: None, 10)
    gatherer.put("a", 5)
    gatherer.put("b", 5)
    assert not gatherer.put("c", 1)
    assert gatherer.drain() == ["a", "b"]
    assert gatherer.put("d", 10)


@pytest.mark.parametrize("size", [11, 1000])
def test_one_item_over_the_limit_goes_alone(size: int) -> None:
    gatherer: Gatherer[str] = Gatherer(lambda batch: None, 10, 10)
    assert gatherer.put("a", size)
    assert gatherer.take() == ["a"]

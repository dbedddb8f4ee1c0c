"""What is known of another node's clock is true, and as narrow as the fastest answer."""

from __future__ import annotations

from math import floor

from hypothesis import given
from hypothesis import strategies as st

from zim.nodes.remote_clock import RemoteClock


def test_before_anything_is_known_nothing_is_over() -> None:
    clock = RemoteClock()
    assert (clock.is_over(1, 1e9), clock.until(1), clock.at_least(5.0)) == (False, float("inf"), None)


def test_the_fastest_answer_bounds_it() -> None:
    clock = RemoteClock()
    clock.heard(1, 10.0, 10.4, 1_000)  # it was 1000 somewhere in between
    assert clock.at_least(10.4) == 1_000
    assert not clock.is_over(1_402, 10.4)
    assert clock.is_over(1_401, 10.4)
    clock.heard(1, 11.0, 11.002, 1_900)
    assert not clock.is_over(1_904, 11.002)
    assert clock.is_over(1_902, 11.002)


def test_an_answer_that_took_long_takes_nothing_away() -> None:
    clock = RemoteClock()
    clock.heard(1, 1.0, 1.001, 5_000)
    clock.heard(1, 2.0, 22.0, 26_000)  # we were stopped for 20 s
    assert clock.is_over(26_100, 22.2)
    assert not clock.is_over(26_300, 22.2)


def test_a_clock_that_jumps_and_one_that_is_another_are_learnt_anew() -> None:
    clock = RemoteClock()
    clock.heard(1, 1.0, 1.001, 5_000)
    clock.heard(1, 2.0, 2.001, 1_000_000)
    assert clock.is_over(900_000, 2.001)
    clock.heard(2, 3.0, 3.001, 7_000)
    clock.heard(1, 3.0, 3.002, 1_000_000)  # the earlier run's, late
    assert not clock.is_over(900_000, 3.002)
    assert clock.term == 2


@given(
    st.integers(-(10**12), 10**12),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=20),
)
def test_the_bounds_hold(offset_ms: int, answers: list[tuple[float, float, float]]) -> None:
    """Whatever the way there and back takes, and wherever in between their clock was read."""
    clock, now = RemoteClock(), 0.0
    for pause, took, share in answers:
        asked_at = now + pause
        now = asked_at + took
        read_at = asked_at + took * share
        clock.heard(1, asked_at, now, floor(offset_ms + read_at * 1000))
        truth_ms = offset_ms + now * 1000
        lowest = clock.at_least(now)
        assert lowest is not None
        assert lowest <= truth_ms + 1
        assert clock.is_over(int(truth_ms) - 1, now)

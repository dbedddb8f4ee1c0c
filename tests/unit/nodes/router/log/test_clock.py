from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.nodes.router.log.clock import MOST_AHEAD_MS, LogClock

YEARS_S = 10 * 365 * 86_400.0


@pytest.mark.parametrize(
    ("stored_ms", "wall_s", "at_ms"),
    [
        (0, 1_000.0, 1_000_000),  # a new log
        (900_000, 1_000.0, 1_000_000),
        (1_000_000, 1_000.0 + YEARS_S, 1_000_000 + MOST_AHEAD_MS),
        (1_000_000, 1_000.0 - YEARS_S, 1_000_000),
        (1_000_000, 0.0, 1_000_000),
    ],
)
def test_where_a_start_goes_on(stored_ms: int, wall_s: float, at_ms: int) -> None:
    clock = LogClock(stored_ms, wall_s, 50.0)
    assert clock.at(50.0) == at_ms
    assert clock.at(51.5) == at_ms + 1_500
    assert clock.wall_at(51.5) == int(wall_s * 1000) + 1_500
    assert clock.ahead_ms == at_ms - int(wall_s * 1000)


def test_what_is_stored_may_become_known_later() -> None:
    clock = LogClock(0, 1_000.0 + YEARS_S, 50.0)
    clock.start_from(1_000_000, 52.0)
    assert clock.at(52.0) == 1_000_000 + MOST_AHEAD_MS
    clock = LogClock(0, 1_000.0, 50.0)
    clock.start_from(0, 52.0)
    assert clock.at(52.0) == 1_002_000


def test_people_are_told_a_wall_clock_that_was_set() -> None:
    clock = LogClock(0, 1_000.0, 50.0)
    clock.see(400.0, 60.0)
    assert (clock.at(60.0), clock.wall_at(61.0), clock.ahead_ms) == (1_010_000, 401_000, 610_000)


@given(st.lists(st.tuples(st.floats(-1e10, 1e10), st.floats(0, 1e6)), max_size=20))
def test_log_time_never_goes_back_and_never_far_ahead(starts: list[tuple[float, float]]) -> None:
    stored_ms = 1_000_000_000
    for wall_s, for_s in starts:
        clock = LogClock(stored_ms, wall_s, 5.0)
        ended_ms = clock.at(5.0 + for_s)
        assert stored_ms <= ended_ms <= stored_ms + MOST_AHEAD_MS + int(for_s * 1000) + 1
        stored_ms = ended_ms

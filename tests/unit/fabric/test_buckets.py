"""Token buckets: what is let through in any time, what is kept, and what happens when there are too many."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.buckets import FORGOTTEN, Bucket, Buckets, Rate

RATES = st.builds(Rate, st.floats(0.01, 1e6), st.floats(1, 1e6))
# Time stands still, goes on, and goes on far.
STEPS = st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 1e6))
NEAR = 1e-6


def check_windows(rate: Rate, taken: list[tuple[float, float]]) -> None:
    """taken: when, and how much, in order of time."""
    for i in range(len(taken)):
        total = 0.0
        for at, cost in taken[i:]:
            total += cost
            most = rate.burst + rate.per_s * (at - taken[i][0])
            # Of seconds since the machine's start a float keeps ten digits behind the point.
            assert total <= most * (1 + NEAR) + rate.per_s * NEAR + NEAR


@given(
    RATES, st.floats(0, 1e7), st.lists(st.tuples(STEPS, st.floats(0.01, 2), st.integers(0, 2)), min_size=1, max_size=40)
)
def test_no_more_than_burst_and_rate_in_any_window(
    rate: Rate, now: float, asked: list[tuple[float, float, int]]
) -> None:
    """Of one bucket, and of each of a table; costs from next to nothing to more than it can ever hold."""
    one, table = Bucket(rate), Buckets[int](rate)
    taken: list[tuple[float, float]] = []
    of_table: dict[int, list[tuple[float, float]]] = {}
    for step, share, key in asked:
        now += step
        cost = rate.burst * share
        if not one.wait_s(cost, now):
            one.take(cost, now)
            taken.append((now, cost))
        if not table.ask(key, cost, now):
            of_table.setdefault(key, []).append((now, cost))
    for mine in (taken, *of_table.values()):
        check_windows(rate, mine)


@given(RATES, st.floats(0, 1e7), st.lists(st.floats(0.01, 1), min_size=1, max_size=20))
def test_who_waits_as_long_as_told_gets_it(rate: Rate, now: float, shares: list[float]) -> None:
    bucket = Bucket(rate)
    for share in shares:
        cost = rate.burst * share
        wait_s = bucket.wait_s(cost, now)
        assert 0 <= wait_s <= rate.fill_s * (1 + NEAR) + NEAR
        now += wait_s * (1 + NEAR) + NEAR
        assert bucket.wait_s(cost, now) == 0
        bucket.take(cost, now)


@pytest.mark.parametrize("rate", [Rate(3, 10), Rate(0.1, 7), Rate(1e6, 3)])
def test_a_full_bucket_has_all_its_tokens(rate: Rate) -> None:
    """To the last one, however the shares of a second are rounded."""
    for now in (0.0, 0.1, 1e6 + 0.3):
        table = Buckets[str](rate)
        assert [table.ask("a", 1, now) > 0 for _ in range(int(rate.burst) + 1)] == [False] * int(rate.burst) + [True]


@given(RATES, st.lists(st.tuples(STEPS, st.integers(0, 30), st.floats(0.01, 1)), max_size=100), st.integers(1, 10))
def test_a_table_is_bounded_and_as_buckets_alone(rate: Rate, asked: list[tuple[float, int, float]], most: int) -> None:
    """As long as there is room each key has what it would have alone; never are there more than that, and who comes
    for the first time gets a full one, whatever others have done."""
    roomy, tight = Buckets[int](rate), Buckets[int](rate, most)
    alone: dict[int, Bucket] = {}
    now = 5.0
    for step, key, share in asked:
        now += step
        cost = rate.burst * share
        one = alone.setdefault(key, Bucket(rate))
        assert roomy.wait_s(key, cost, now) == pytest.approx(one.wait_s(cost, now), rel=1e-6, abs=1e-6)
        if not one.wait_s(cost, now):
            one.take(cost, now)
            roomy.take(key, cost, now)
        is_known = key in tight._full_at
        wait_s = tight.ask(key, cost, now)
        assert is_known or not wait_s
        assert len(tight) <= most
        assert sum(len(keys) for keys in tight._slots.values()) == len(tight)
        assert tight._first == min(tight._slots, default=0)


def test_full_buckets_are_forgotten() -> None:
    """A moment later nothing is left of a crowd, a few with each call."""
    table = Buckets[int](Rate(10, 20))
    for key in range(1_000):
        table.take(key, 1, 100.0)
    assert len(table) == 1_000
    for key in range(1_000, 1_000 + 1_000 // FORGOTTEN + 1):
        table.take(key, 1, 101.0)
    assert len(table) <= 1_000 // FORGOTTEN + 1 + FORGOTTEN
    assert table.forced == 0


def test_a_crowd_of_keys_resets_nobody_who_owes_much() -> None:
    """Three times as many addresses as there is room for, and the one that went too far is still held off."""
    table = Buckets[str](Rate(1, 100), most=50)
    while not table.ask("flooder", 10, 0.0):
        pass
    for n in range(150):
        assert table.ask(f"other {n}", 1, 0.0) == 0
    assert len(table) == 50
    assert table.forced == 101
    assert table.ask("flooder", 1, 0.0) > 0


def test_nobody_is_locked_out_by_a_crowd() -> None:
    """All that there is room for owe as much as can be: who comes gets in, and is remembered."""
    table = Buckets[str](Rate(1, 100), most=50)
    for n in range(50):
        table.take(f"flooder {n}", 100, 0.0)
    assert [table.ask("anna", 100, 0.0), table.ask("anna", 1, 0.0) > 0] == [0, True]
    # Those who had to go for her, and for each other, are no more than those who came.
    assert sum(table.ask(f"flooder {n}", 1, 0.0) > 0 for n in range(50)) >= 47


def test_what_is_owed_has_to_be_waited_for() -> None:
    bucket = Bucket(Rate(10, 20))
    bucket.take(50, 1.0)
    assert bucket.wait_s(0, 1.0) == pytest.approx(3.0)
    assert bucket.wait_s(1, 4.0) == pytest.approx(0.1)
    assert bucket.wait_s(1, 4.1) == 0


def test_shares_add_up() -> None:
    rate = Rate(30, 60)
    assert rate.shared_by(3) == Rate(10, 20)
    assert rate.shared_by(3).fill_s == rate.fill_s


def test_it_takes_no_longer_with_many_keys() -> None:
    """Slots are few, however many keys there are."""
    table = Buckets[int](Rate(5, 50))
    now = 1e5
    for key, step in zip(range(20_000), itertools.cycle([0.0, 1e-4]), strict=False):
        now += step
        table.take(key, key % 50 + 1, now)
        assert len(table._slots) <= 18

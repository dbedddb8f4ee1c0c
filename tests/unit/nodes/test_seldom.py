"""Lines of the log that somebody could make many of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zim.nodes.seldom import EVERY_S, MOST, Seldom


def test_it_is_said_at_once_then_now_and_then_with_its_number() -> None:
    seldom = Seldom()
    assert seldom.times("comet-1", 0.0) == 1
    assert [seldom.times("comet-1", 1.0) for _ in range(5)] == [0] * 5
    assert seldom.times("comet-2", 1.0) == 1
    assert seldom.times("comet-1", EVERY_S) == 6
    assert seldom.times("comet-1", EVERY_S + 1) == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, int(3 * EVERY_S))), max_size=50))
def test_nothing_is_said_twice_or_forgotten(times: list[tuple[str, int]]) -> None:
    seldom, now = Seldom(), 0.0
    said: dict[str, int] = {}
    happened: dict[str, int] = {}
    for what, wait_s in times:
        now += wait_s
        happened[what] = happened.get(what, 0) + 1
        said[what] = said.get(what, 0) + seldom.times(what, now)
        assert said[what] <= happened[what]
    now += EVERY_S
    for what, number in happened.items():
        assert said[what] + seldom.times(what, now) == number + 1


def test_it_does_not_grow_for_ever() -> None:
    seldom = Seldom()
    for i in range(3 * MOST):
        assert seldom.times(str(i), 0.0) == 1
        assert len(seldom._said) <= MOST

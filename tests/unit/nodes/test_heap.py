"""When freed memory is given back."""

from __future__ import annotations

from zim.nodes.heap import WORTH_BYTES, Leavings

MIB = 1 << 20


def due(*free_mib: int) -> list[bool]:
    leavings = Leavings()
    return [leavings.is_due(mib * MIB) for mib in free_mib]


def test_little_is_left_alone() -> None:
    assert WORTH_BYTES == 4 * MIB
    assert due(1, 3, 3, 2) == [False] * 4


def test_it_waits_until_the_storm_is_over_and_gives_back_once() -> None:
    assert due(100, 200, 202, 202, 201) == [False, False, True, False, False]


def test_what_was_used_again_and_is_free_again_is_given_back_again() -> None:
    assert due(100, 100, 10, 10, 100, 100) == [False, True, False, False, False, True]

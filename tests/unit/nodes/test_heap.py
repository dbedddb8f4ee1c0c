"""When freed memory is given back."""

from __future__ import annotations

import gc
import sys
import weakref

import gevent
import pytest

from tests.harness import wait_until
from zim.nodes import heap
from zim.nodes.base import GC_THRESHOLD
from zim.nodes.heap import WORTH_BYTES, YOUNG, Leavings, give_back

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


class Circle:
    """What only the garbage collector frees."""

    def __init__(self) -> None:
        self.me = self


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_circles_of_a_node_that_has_nothing_to_do_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "LOOK_S", 0.01)
    gone = weakref.ref(Circle())
    gc.disable()
    looking = gevent.spawn(give_back)
    try:
        wait_until(lambda: gone() is None, "the circle is freed")
    finally:
        gc.enable()
        looking.kill()


def test_what_is_collected_at_once_is_bounded() -> None:
    assert YOUNG == 1
    assert GC_THRESHOLD[0] * GC_THRESHOLD[1] == 40_000

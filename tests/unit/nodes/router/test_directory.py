"""Numbers that no comet has said do not stay: whatever one message names, the next one may follow it."""

from __future__ import annotations

import pytest

from zim.nodes.router.directory import FAR, STEP, Directory
from zim.protocol.messages import Begin, Change, Changes, Put

INC = 1_700_000_000_000


def tell(directory: Directory, *changes: Change, inc: int = INC) -> list[bool]:
    m = Changes("router-1", "comet-1", inc, 7, list(changes))
    return [directory.is_possible(m, c) and directory.apply(m, c, 9.0) is not None for c in changes]


@pytest.mark.parametrize(("n", "is_taken"), [(FAR - 1, True), (FAR, False), ((1 << 53) - 1, False)])
def test_a_change_that_is_far_ahead_is_passed_over(n: int, is_taken: bool) -> None:
    directory = Directory(1)
    assert tell(directory, Begin(1, 0)) == [True]
    assert tell(directory, Begin(n, 0)) == [is_taken]
    at = directory.feeds["comet-1"].applied
    assert tell(directory, Begin(at + 1, 1), Put(at + 2, 1, "7", 0, ())) == [True, True]


@pytest.mark.parametrize(("inc", "is_taken"), [(FAR - 1, True), (FAR, False), ((1 << 53) - 1, False)])
def test_a_run_that_is_far_ahead_is_passed_over(inc: int, is_taken: bool) -> None:
    directory = Directory(1)
    assert tell(directory, Begin(1, 0)) == [True]
    assert tell(directory, Begin(1, 0), inc=inc) == [is_taken]
    assert tell(directory, Begin(2, 0), inc=directory.feeds["comet-1"].inc + 1) == [True]


def test_a_router_that_is_new_believes_where_the_numbers_are() -> None:
    directory = Directory(1)
    assert tell(directory, Begin(FAR + STEP, 0), inc=FAR + STEP) == [True]


def test_a_session_with_a_number_that_cannot_be_gets_another() -> None:
    directory = Directory(1)
    assert tell(directory, Begin(1, 2), Put(2, 1, "7", (1 << 53) - 1, ()), Put(3, 2, "7", FAR - 1, ())) == [True] * 3
    assert [directory.seq("comet-1", conn) for conn in (1, 2)] == [1, FAR - 1]
    assert tell(directory, Put(4, 3, "7", 0, ())) == [True]
    assert directory.seq("comet-1", 3) == FAR

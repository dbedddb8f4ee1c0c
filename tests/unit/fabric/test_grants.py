"""What a token allows: which rooms, which histories, and that a grant is checked before anybody keeps to it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.grants import LIFETIME_S, NO_RIGHTS, Denial, Grant, Rights, grant_problem
from zim.fabric.limits import NAME_BYTES, PATTERN_BYTES, PATTERNS, ROOMS
from zim.fabric.names import is_name
from zim.fabric.streams import is_room

TEXTS = st.text(st.sampled_from("a7*é\n\x85\u200d"), max_size=5) | st.text(st.characters(), max_size=5)
LISTS = st.lists(TEXTS, max_size=3).map(tuple)


def test_a_session_may_join_its_own_rooms_and_those_of_its_patterns() -> None:
    rights = Grant("7", ("lobby",), ("chat-*", "[*]")).rights
    assert [room for room in ("lobby", "chat-1", "chat-", "*", "lobby2", "Chat-1", "") if rights.may_join(room)] == [
        "lobby",
        "chat-1",
        "chat-",
        "*",
    ]
    assert Grant("7", (), ("*",)).rights.may_join("anything")
    assert not NO_RIGHTS.may_join("lobby")


def test_a_room_that_looks_like_a_pattern_is_that_room_alone() -> None:
    rights = Grant("7", ("chat-*",)).rights
    assert rights.may_join("chat-*")
    assert not rights.may_join("chat-1")


def test_a_session_may_read_streams_of_its_patterns_alone() -> None:
    rights = Grant("7", ("lobby",), ("chat-*",), ("r:news-*", "u:8")).rights
    assert [s for s in ("r:news-1", "u:8", "u:7", "r:lobby", "r:chat-1", "*") if rights.may_read(s)] == [
        "r:news-1",
        "u:8",
    ]
    assert not NO_RIGHTS.may_read("*")


def test_all_who_may_do_the_same_share_one_value() -> None:
    one, other = (Grant(user, ("lobby",), ("a*",), ("r:*",), device, 5, True) for user, device in ("7a", "8b"))
    assert one.rights is other.rights
    assert one.rights == Rights(("lobby",), ("a*",), ("r:*",), True)
    assert Grant("7").rights == NO_RIGHTS


@pytest.mark.parametrize(
    ("grant", "words"),
    [
        (Grant(""), "nobody can be called ''; right is 1 to 253 bytes"),
        (Grant("x" * (NAME_BYTES + 1)), "nobody can be called 'xxx"),
        (Grant("é" * 127), "nobody can be called"),
        (Grant("7\n"), r"nobody can be called '7\n'"),
        (Grant("\ud800"), "nobody can be called"),
        (Grant("7", ("a", "")), "no room can be called ''"),
        (Grant("7", ("*",)), "no room can be called '*'; right is"),
        (Grant("7", ("a\0",)), r"no room can be called 'a\x00'"),
        (Grant("7", tuple(map(str, range(ROOMS + 1)))), "1001 rooms; right is at most 1000"),
        (Grant("7", (), ("",)), "'' is no pattern; right is 1 to 255 bytes"),
        (Grant("7", (), ("a", "b\n")), r"'b\n' is no pattern"),
        (Grant("7", (), ("x" * (PATTERN_BYTES + 1),)), "is no pattern"),
        (Grant("7", (), ("a",) * (PATTERNS + 1)), "101 patterns; right is at most 100"),
        (Grant("7", (), (), ("",)), "'' is no pattern"),
        (Grant("7", (), (), ("a",) * (PATTERNS + 1)), "101 patterns; right is at most 100"),
        (Grant("7", device="a\n"), r"'a\n' is no class of devices; right is 1 to 253 bytes"),
        (Grant("7", device="x" * (NAME_BYTES + 1)), "is no class of devices"),
    ],
)
def test_what_cannot_be_in_a_grant_is_named(grant: Grant, words: str) -> None:
    problem = grant_problem(grant)
    assert words in problem
    assert problem.isprintable()
    assert len(problem) < 250


def test_a_grant_as_large_as_it_may_be() -> None:
    rooms = tuple(f"{n:0253}" for n in range(ROOMS))
    patterns = ("*" * PATTERN_BYTES,) * PATTERNS
    assert grant_problem(Grant("x" * NAME_BYTES, rooms, patterns, patterns, "d" * NAME_BYTES)) == ""


@given(TEXTS, LISTS, LISTS, LISTS, TEXTS)
def test_what_has_no_problem_can_be_a_session(
    user: str, rooms: tuple[str, ...], join: tuple[str, ...], read: tuple[str, ...], device: str
) -> None:
    grant = Grant(user, rooms, join, read, device)
    if problem := grant_problem(grant):
        assert problem.isprintable()
        return
    assert is_name(user)
    assert all(map(is_room, rooms))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(grant), type=Grant) == grant


@pytest.mark.parametrize(
    "values",
    [
        ["7", [], [], [], "", -1],
        ["7", [], [], [], "", int(LIFETIME_S * 1000) + 1],
        ["7", [], ["a"] * (PATTERNS + 1)],
        ["7", [str(n) for n in range(ROOMS + 1)]],
        ["7", [], [], [], "x" * (NAME_BYTES + 1)],
        [7],
        [],
    ],
)
def test_what_is_beyond_a_limit_is_no_grant_on_the_wire(values: list[Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, Grant)


def test_a_denial_has_one_of_three_codes() -> None:
    for code in ("refused", "expired", "try_again"):
        assert msgspec.convert([code, "why"], Denial) == Denial(code, "why")
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(["perhaps", "why"], Denial)

"""Whom a push is for, and what it may be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.limits import KEY_BYTES, RECIPIENTS, TTL_S
from zim.fabric.push import Push, WrongValue, check_push, check_streams, is_op, is_ttl_s, recipients
from zim.fabric.streams import is_stream
from zim.protocol.frame import Op

PUSH = Push(["u:7", "r:1"], b"x", only=("7_1",))
NAMES = st.lists(st.text("a*é_\n", max_size=3) | st.integers(-1, 9), max_size=4)
KEYS = st.lists(st.text("7_1a", max_size=4), max_size=4)


@given(NAMES, NAMES, KEYS, st.booleans())
def test_recipients_are_streams_or_an_error(
    users: list[str | int], rooms: list[str | int], keys: list[str], everybody: bool
) -> None:
    try:
        streams, only = recipients(users, rooms, keys, everybody)
    except WrongValue:
        return
    check_streams(Push(streams, b"", only=only))
    assert len(set(streams)) == len(streams) > 0
    assert all(map(is_stream, streams))
    assert set(only) <= set(keys)
    assert ("*" in streams) == everybody


def test_recipients() -> None:
    streams, only = recipients([7, "7", "é"], ["a", 1], ["7_12", "a_b_3", "9_4", "9_4"], True)
    assert streams == ["u:7", "u:é", "u:a_b", "u:9", "r:a", "r:1", "*"]
    assert only == ("a_b_3", "9_4")


@pytest.mark.parametrize(
    ("users", "rooms", "keys", "where"),
    [
        ([], [], [], "to"),
        ([7] * (RECIPIENTS + 1), [], [], "to"),
        (["7", ""], [], [], "to.users[1]"),
        ([], ["*"], [], "to.rooms[0]"),
        ([], [], ["7_1", "7"], "to.keys[1]"),
    ],
)
def test_wrong_recipients(users: list[str | int], rooms: list[str | int], keys: list[str], where: str) -> None:
    with pytest.raises(WrongValue) as caught:
        recipients(users, rooms, keys, False)
    assert caught.value.where == where


def test_everybody_is_not_counted_as_a_recipient() -> None:
    streams, only = recipients(range(RECIPIENTS), [], [], True)
    check_streams(Push(streams, b"", only=only))


@given(st.integers())
def test_ops(op: int) -> None:
    assert is_op(op) == (op == 5 or (100 <= op < 1 << 31 and op not in (254, 255)))


def test_the_ops_of_goim_and_of_zim_are_not_for_pushes() -> None:
    ops = {value for name, value in vars(Op).items() if not name.startswith("_")}
    assert [op for op in sorted(ops) if is_op(op)] == [Op.PUSH]


@given(st.floats())
def test_times_to_live(ttl_s: float) -> None:
    assert is_ttl_s(ttl_s) == (0 <= ttl_s <= TTL_S)


@pytest.mark.parametrize(
    ("push", "where"),
    [
        (replace(PUSH, op=254), "op"),
        (replace(PUSH, op=99), "op"),
        (replace(PUSH, ttl_s=-1.0), "ttl_s"),
        (replace(PUSH, ttl_s=float("nan")), "ttl_s"),
        (replace(PUSH, key="x" * (KEY_BYTES + 1)), "key"),
        (replace(PUSH, key="\n"), "key"),
        (replace(PUSH, streams=[]), "streams"),
        (replace(PUSH, streams=["u:7"] * (RECIPIENTS + 1)), "streams"),
        (replace(PUSH, streams=["u:7", "r:*"]), "streams"),
        (replace(PUSH, only=("7_1",) * (RECIPIENTS + 1)), "streams"),
        (replace(PUSH, only=("7_0",)), "only"),
        (replace(PUSH, only=("7_1", "8_1")), "only"),
    ],
)
def test_what_is_wrong_is_named(push: Push, where: str) -> None:
    def check(push: Push) -> None:
        check_push(push)
        check_streams(push)

    check(PUSH)
    with pytest.raises(WrongValue, match="right is") as caught:
        check(push)
    assert caught.value.where == where

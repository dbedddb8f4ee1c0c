"""Whom a push is for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.audience import ALL, audience, audiences
from zim.fabric.streams import user_of_key, user_stream


@pytest.mark.parametrize(
    ("stream", "only", "keys"),
    [
        ("u:7", (), ()),
        ("u:7", ("7_1", "8_1", "7_2"), ("7_1", "7_2")),
        ("u:9", ("7_1",), ()),
        ("u:a_b", ("a_b_3", "a_3"), ("a_b_3",)),
        ("r:7", ("7_1",), ()),
        ("*", ("7_1",), ()),
    ],
)
def test_keys_narrow_their_users_streams(stream: str, only: tuple[str, ...], keys: tuple[str, ...]) -> None:
    assert tuple(audiences(only).get(stream, ALL).keys) == keys


@given(st.lists(st.sampled_from(["7_1", "7_2", "8_1", "a_b_3", "nonsense"]), max_size=8))
def test_each_key_is_in_the_audience_of_its_user_once(only: list[str]) -> None:
    found = audiences(only)
    named = [key for stream, to in found.items() for key in to.keys]
    assert sorted(named) == sorted(set(only))
    assert all(user_stream(user_of_key(key)) == stream for stream, to in found.items() for key in to.keys)


def test_no_keys_are_all() -> None:
    assert audience(()) is ALL
    assert list(audience(("7_2", "7_1", "7_2")).keys) == ["7_2", "7_1"]
    assert not audiences(())

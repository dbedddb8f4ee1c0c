"""What JSON is: strictly, and with one limit of nesting."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.json_text import MAX_DEPTH, is_json, is_too_deep

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('\\"[]{}ab\ud83d', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\', max_size=3), inner, max_size=3),
    max_leaves=20,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.integers(0, 80))
def test_the_depth_is_that_of_the_value_whatever_strings_have(value: object, more: int) -> None:
    for _ in range(more):
        value = [value]
    document = json.dumps(value).encode()
    assert is_too_deep(document) == (depth_of(value) > MAX_DEPTH)
    assert is_json(document) == (depth_of(value) <= MAX_DEPTH)


@given(st.binary(max_size=60))
def test_anything_else_has_an_answer(document: bytes) -> None:
    found = is_json(document)
    with suppress(ValueError):
        json.loads(document.decode())
        return
    assert not found


@pytest.mark.parametrize("document", [b"NaN", b"Infinity", b"-Infinity", b"", b"1 2", b"[1,]", b"\xff", b"'a'", b"01"])
def test_what_python_or_javascript_takes_is_none(document: bytes) -> None:
    assert not is_json(document)


def test_very_deep_is_found_without_going_there() -> None:
    assert is_too_deep(b"[" * 1_000_000)
    assert not is_json(b"[" * 1_000_000 + b"]" * 1_000_000)
    assert is_json(b"1" * 10_000)

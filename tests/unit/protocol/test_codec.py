from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.protocol import codec, messages
from zim.protocol.errors import CodecError

NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
OPS = st.integers(-(1 << 31), (1 << 31) - 1)
ITEMS = st.lists(st.tuples(st.text(max_size=5), NUMBERS), max_size=3)
CHANGES = (
    st.builds(messages.Begin, NUMBERS, NUMBERS)
    | st.builds(messages.Put, NUMBERS, NUMBERS, st.text(), NUMBERS, st.lists(st.text(), max_size=2).map(tuple))
    | st.builds(messages.Room, NUMBERS, st.text(), NUMBERS)
)
PUBLICATIONS = st.builds(
    messages.Publication,
    st.text(),
    st.lists(st.text(), max_size=3),
    OPS,
    st.binary(),
    st.binary(max_size=16),
    NUMBERS,
    NUMBERS,
    st.booleans(),
    st.booleans(),
    NUMBERS,
    st.lists(st.text(), max_size=2).map(tuple),
)
TO_ROUTER = st.builds(messages.Changes, st.text(), NUMBERS, NUMBERS, st.lists(CHANGES, max_size=3)) | st.builds(
    messages.Publish, NUMBERS, NUMBERS, NUMBERS, st.lists(PUBLICATIONS, max_size=3)
)
TARGETS = st.builds(messages.Target, st.text(), NUMBERS, NUMBERS, ITEMS)
PUSHES = st.builds(messages.Push, st.text(), NUMBERS, st.text(), OPS, st.binary(), st.lists(TARGETS, max_size=3))


@given(st.lists(TO_ROUTER, max_size=4))
def test_requests_survive(sent: list[messages.ToRouter]) -> None:
    assert codec.decode(codec.encode(sent), messages.ToRouter) == sent


@given(st.lists(PUSHES, max_size=4))
def test_pushes_survive(sent: list[messages.Push]) -> None:
    assert codec.decode(codec.encode(sent), messages.Push) == sent


VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=100) | VALUES.map(msgpack.packb))
def test_anything_else_is_a_codec_error(frame: bytes) -> None:
    for expected in (messages.ToRouter, messages.ToComet, messages.Push, messages.Entry, messages.Auth):
        with suppress(CodecError):
            assert isinstance(codec.decode(frame, expected), list)
    plain = codec.decode_plain(frame)
    assert plain is None or isinstance(plain, dict)


def test_a_message_of_another_link_is_an_error() -> None:
    with pytest.raises(CodecError):
        codec.decode(codec.encode([messages.Auth(1, b"7")]), messages.ToRouter)

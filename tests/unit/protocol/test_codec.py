import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric import limits
from zim.fabric.answers import Place
from zim.fabric.limits import MESSAGES, OFFSET, PUSHES, RESULTS, ROOMS, TTL_S
from zim.protocol import codec, logins, messages
from zim.protocol.errors import CodecError
from zim.protocol.messages import ToComet
from zim.protocol.publication import Outcome, Publication

ANY_NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1)
NUMBERS = st.integers(0, OFFSET)
RUNS = st.integers(0, (1 << 53) - 1)  # terms, incarnations, session numbers, moments
TTLS = st.integers(0, int(TTL_S * 1000))
OPS = st.integers(-(1 << 31), (1 << 31) - 1)
ITEMS = st.lists(st.tuples(st.text(max_size=5), NUMBERS), max_size=3)
CHANGES = (
    st.builds(messages.Begin, NUMBERS, NUMBERS)
    | st.builds(messages.Put, NUMBERS, NUMBERS, st.text(), RUNS, st.lists(st.text(), max_size=2).map(tuple))
    | st.builds(messages.Room, NUMBERS, st.text(), st.integers(0, (1 << 31) - 1))
)
PUBLICATIONS = st.builds(
    Publication,
    st.text(),
    st.lists(st.text(), max_size=3),
    OPS,
    st.binary(),
    st.binary(max_size=16),
    RUNS,
    RUNS,
    st.booleans(),
    st.booleans(),
    TTLS,
    RUNS,
    st.lists(st.text(), max_size=2).map(tuple),
)
TO_ROUTER = st.builds(messages.Changes, st.text(), st.text(), RUNS, RUNS, st.lists(CHANGES, max_size=3)) | st.builds(
    messages.Publish, st.text(), NUMBERS, NUMBERS, RUNS, st.lists(PUBLICATIONS, max_size=3)
)
TARGETS = st.builds(messages.Target, st.text(), RUNS, NUMBERS, NUMBERS, ITEMS)
SENT_PUSHES = st.builds(messages.Push, st.text(), st.text(), OPS, st.binary(), st.lists(TARGETS, max_size=3))


@given(st.lists(TO_ROUTER, max_size=4))
def test_requests_survive(sent: list[messages.ToRouter]) -> None:
    assert codec.decode(codec.encode(sent), messages.ToRouter) == sent


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 500))
def test_frames_are_cut_and_carry_all(sizes: list[int], cut_bytes: int) -> None:
    sent = [logins.Auth(n, b"x" * size, 1) for n, size in enumerate(sizes)]
    frames = list(codec.encode_cut(sent, cut_bytes))
    found = [codec.decode(frame, logins.Auth) for frame in frames]
    assert [m for part in found for m in part] == sent
    assert all(part for part in found)
    assert all(len(frame) <= cut_bytes + 5 for frame, part in zip(frames, found, strict=True) if len(part) > 1)


@given(st.lists(SENT_PUSHES, max_size=4))
def test_pushes_survive(sent: list[messages.Push]) -> None:
    assert codec.decode(codec.encode(sent), messages.Push) == sent


VALUES = st.recursive(
    st.none() | st.booleans() | ANY_NUMBERS | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=100) | VALUES.map(msgpack.packb))
def test_anything_else_is_a_codec_error(frame: bytes) -> None:
    for expected in (messages.ToRouter, messages.ToComet, messages.Push, messages.Entry, logins.Auth):
        with suppress(CodecError):
            assert isinstance(codec.decode(frame, expected), list)
    plain = codec.decode_plain(frame)
    assert plain is None or isinstance(plain, dict)


@given(st.lists(SENT_PUSHES, max_size=4), st.lists(VALUES, max_size=4), st.randoms())
def test_what_is_no_message_leaves_the_others_of_its_frame(
    sent: list[messages.Push], others: list[Any], order: random.Random
) -> None:
    parts = [(push, codec.encode([push])[1:]) for push in sent] + [(None, msgpack.packb(other)) for other in others]
    order.shuffle(parts)
    frame = bytes([0x90 | len(parts)]) + b"".join(part for _, part in parts)
    assert codec.decode_each(frame, messages.Push) is not None
    found, errors = codec.decode_each(frame, messages.Push) or ([], [])
    assert found == [push for push, _ in parts if push is not None]
    assert len(errors) == len(others)


@given(st.binary(max_size=100) | VALUES.map(msgpack.packb))
def test_no_frame_has_no_messages(frame: bytes) -> None:
    found = codec.decode_each(frame, messages.Push)
    assert found is None or found[0] == []


def test_a_frame_of_very_many_is_not_looked_at_one_by_one() -> None:
    assert codec.decode_each(b"\xdd\x00\x10\x00\x00" + b"\x90" * (1 << 20), messages.Push) is None


ON_LINKS: list[tuple[Any, Any]] = [
    (kind, link)
    for link in (
        messages.ToRouter,
        messages.ToComet,
        messages.ToAsker,
        messages.ToLogic,
        messages.ToPublisher,
        messages.FromLogic,
        messages.ToJob,
        messages.Entry,
    )
    for kind in (get_args(link) or (link,))
]


def _values(kind: Any) -> list[Any]:
    """A value of each field of a message."""
    return [_value(field.type) for field in msgspec.inspect.type_info(kind).fields]  # type: ignore[attr-defined]


def _value(of: Any) -> Any:
    inner = msgspec.inspect
    match of:
        case inner.IntType():
            return max(0, of.ge or 0)
        case inner.StrType():
            return "x"
        case inner.BytesType():
            return b"x"
        case inner.BoolType():
            return False
        case inner.LiteralType():
            return of.values[0]
        case inner.UnionType():
            return _value(of.types[0])
        case inner.StructType():
            found = [_value(field.type) for field in of.fields]
            return [of.tag, *found] if of.tag else found
        case inner.ListType() | inner.VarTupleType():
            return [_value(of.item_type)]
        case inner.TupleType():
            return [_value(item) for item in of.item_types]
        case inner.NoneType() | inner.AnyType():
            return None
    raise AssertionError(of)


def _spoilt(value: Any, number: int) -> Iterator[Any]:
    """The value with each of its numbers, one at a time, replaced by another one."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield number
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            for other in _spoilt(inner, number):
                yield [*value[:i], other, *value[i + 1 :]]


@pytest.mark.parametrize(("kind", "link"), ON_LINKS, ids=lambda x: getattr(x, "__name__", "link"))
@pytest.mark.parametrize("number", [-(1 << 31) - 1, 1 << 63, (1 << 64) - 1])
def test_no_number_beyond_its_field_gets_in(kind: Any, link: Any, number: int) -> None:
    """From a peer on the links: each number of each message."""
    right = [kind.__struct_config__.tag, *_values(kind)]
    assert codec.decode(msgpack.packb([right]), link)
    for wrong in _spoilt(right, number):
        with pytest.raises(CodecError):
            codec.decode(msgpack.packb([wrong]), link)


RESULT = messages.Result(1, 1, 1, 0, 0, 0)
PUBLICATION = Publication("p", ["u:1"], 5, b"")

# what a message with so many of something is, how many it may have, and the link that carries it
LISTS: list[tuple[Any, int, Any]] = [
    (lambda n: messages.Publish("router-1", 1, 1, 1, [PUBLICATION] * n), PUSHES, messages.ToRouter),
    (
        lambda n: messages.Changes("router-1", "comet-1", 1, 1, [messages.Del(1, 1)] * n),
        limits.CHANGES,
        messages.ToRouter,
    ),
    (lambda n: messages.Renew("router-1", "comet-1", 1, 1, 1, 1, [RESULT] * n), RESULTS, messages.ToRouter),
    (lambda n: messages.Answers("router-1", 1, 1, [messages.Answer(1, 1, "", 1, 1)] * n), limits.CHANGES, ToComet),
    (lambda n: messages.Records(1, "r", "u:1", "e", 0, 1, [messages.Record(1, "p", 5, b"")] * n, 1), MESSAGES, ToComet),
    (lambda n: messages.PublishReply(1, "r", 1, [Outcome(1, "ok")] * n), PUSHES, messages.ToAsker),
    (lambda n: messages.Answered(1, "r", Place("c", "k", ("1",) * n)), 2 * ROOMS, Place),
]


@pytest.mark.parametrize(("make", "most", "link"), LISTS, ids=lambda x: str(x) if isinstance(x, int) else "")
def test_a_list_of_the_greatest_length_passes_and_a_longer_one_does_not(make: Any, most: int, link: Any) -> None:
    def passes(sent: Any) -> None:
        if link is Place:
            msgspec.convert(msgspec.to_builtins(sent.answer), Place)
        else:
            assert codec.decode(codec.encode([sent]), link) == [sent]

    passes(make(most))
    with pytest.raises((CodecError, msgspec.ValidationError)):
        passes(make(most + 1))


def test_a_message_of_another_link_is_an_error() -> None:
    with pytest.raises(CodecError):
        codec.decode(codec.encode([logins.Auth(1, b"7", 1)]), messages.ToRouter)


@pytest.mark.parametrize(
    "banned", [["", "", ""], ["7", "", "10.0.0.0/8"], *(["", "", text] for text in ("x", "10.0.0.1/8", "::/129", "\0"))]
)
@pytest.mark.parametrize("kind", ["banwho", "liftban"])
def test_a_ban_of_what_cannot_be_banned_is_no_message(kind: str, banned: list[str]) -> None:
    """Every comet died of its order, and of the same one again after its restart: it is on the router's disk."""
    with pytest.raises(CodecError):
        codec.decode(msgspec.msgpack.encode([["ask", 1, [kind, banned]]]), messages.ToRouter)


@pytest.mark.parametrize("order", [["bar", 1, "", "x"], ["bar", 1, "x", "x"], ["unbar", 1, "x"]])
def test_an_order_about_what_is_no_network_is_no_message(order: list[Any]) -> None:
    with pytest.raises(CodecError):
        codec.decode(msgspec.msgpack.encode([["orders", "router-1", 1, 1, 1, [order]]]), messages.ToComet)

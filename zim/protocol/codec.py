"""Messages ⇄ the bytes of a ZeroMQ frame, which is msgpack.

Between nodes msgspec reads and writes it: names, shapes, types and ranges are checked while a frame is read, so that
nothing from a peer reaches a node unchecked, and what is not a message costs no memory. The maps that people send from
a REPL have no shape: these msgpack reads. The only importer of msgpack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar, cast

import msgpack
import msgspec

from zim.fabric.questions import Question
from zim.protocol.errors import CodecError
from zim.protocol.message import Message
from zim.protocol.messages import Answered

A = TypeVar("A")

ONE_BY_ONE = 500  # messages of a frame: each on its own costs more than all together
_FIXARRAY, _ARRAY_OF_ONE = 0x9, b"\x91"
PLAIN_BYTES = 4_096  # of what a person asks from a REPL

_ENCODER = msgspec.msgpack.Encoder()


def encode(messages: Sequence[Message]) -> bytes:
    """One frame that carries these messages, in order."""
    return _ENCODER.encode(messages)


def encode_cut(messages: Sequence[Message], cut_bytes: int) -> Iterator[bytes]:
    """Frames that carry these messages, in order.

    Args:
        cut_bytes: a frame ends before the message that would carry it past this; one message may be larger alone.
    """
    if len(messages) == 1:
        yield encode(messages)
        return
    parts: list[bytes] = []
    size = 0
    for m in messages:
        part = _ENCODER.encode(m)
        if parts and size + len(part) > cut_bytes:
            yield _array(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield _array(parts)


def _array(parts: Sequence[bytes]) -> bytes:
    """msgpack: array 32."""
    return b"".join([b"\xdd", len(parts).to_bytes(4, "big"), *parts])


_TEXT = re.compile(rb"[\t\r\n -~]+")  # as of HTTP, of which libzmq takes away the first bytes


@cache
def _decoder(expected: Any) -> msgspec.msgpack.Decoder[list[Any]]:
    return msgspec.msgpack.Decoder(list[expected])


def decode(frame: bytes, expected: Any) -> list[Any]:
    """The messages in a frame.

    Args:
        frame: as `encode` made it.
        expected: the message or union of messages that this link carries.

    Raises:
        CodecError: anything else.
    """
    try:
        return _decoder(expected).decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        hint = "; it looks like text: clients and backends have other ports" if _TEXT.fullmatch(frame[:64]) else ""
        raise CodecError(f"not a message of this link: {e}{hint}") from None


def decode_each(frame: bytes, expected: Any) -> tuple[list[Any], list[CodecError]] | None:
    """Of a frame with a message that is none the others, and what is wrong with those that are none.

    Args: see `decode`.

    Returns:
        Nothing if it is no frame, or has too many messages to be looked at one by one.
    """
    if _array_length(frame) > ONE_BY_ONE:
        return None
    try:
        raws = msgspec.msgpack.decode(frame, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return None
    found, errors = list[Any](), list[CodecError]()
    for raw in raws:
        try:
            found += decode(_ARRAY_OF_ONE + bytes(raw), expected)
        except CodecError as e:
            errors.append(e)
    return found, errors


def _array_length(frame: bytes) -> int:
    """How many elements the array has that a frame is, by its first bytes; 0 if it is none.

    Source: https://github.com/msgpack/msgpack/blob/master/spec.md, the array format family.
    """
    match frame[:1]:
        case b"\xdc":
            return int.from_bytes(frame[1:3])
        case b"\xdd":
            return int.from_bytes(frame[1:5])
    return frame[0] & 0x0F if frame and frame[0] >> 4 == _FIXARRAY else 0


def decode_answer(m: Answered, question: Question[A]) -> A:
    """What a router has answered to a question.

    Raises:
        CodecError: it is no answer to this question.
    """
    try:
        return cast(A, msgspec.convert(m.answer, question.answer_type()))
    except msgspec.ValidationError as e:
        raise CodecError(f"{m.shard}: no answer to {type(question).__name__}: {e}") from None


def encode_plain(value: Any) -> bytes:
    """A map for people at a REPL: see `decode_plain`. value: the map, or the answer to a question."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(value))
    return packed


def decode_plain(frame: bytes) -> dict[str, Any] | None:
    """What a person asked from a REPL with zmq.REQ: a map such as `{"locate": "7"}`. Nothing if it is not a map."""
    is_map = frame and (frame[0] & 0xF0 == 0x80 or frame[0] in (0xDE, 0xDF))  # msgpack: fixmap, map 16, map 32
    if not is_map or len(frame) > PLAIN_BYTES:
        return None
    try:
        value = msgpack.unpackb(frame)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None
    return value if isinstance(value, dict) else None

"""Messages ⇄ the bytes of a ZeroMQ frame. The only importer of msgpack.

msgpack makes the bytes; msgspec checks names, shapes and types, so that nothing from a peer reaches a node unchecked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import msgpack
import msgspec

from zim.fabric.questions import Question
from zim.protocol.errors import CodecError
from zim.protocol.messages import Answered, Message

A = TypeVar("A")


def encode(messages: Sequence[Message]) -> bytes:
    """One frame that carries these messages, in order."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(messages, builtin_types=(bytes,)))
    return packed


def decode(frame: bytes, expected: Any) -> list[Any]:
    """The messages in a frame.

    Args:
        frame: as `encode` made it.
        expected: the message or union of messages that this link carries.

    Raises:
        CodecError: anything else.
    """
    try:
        return msgspec.convert(msgpack.unpackb(frame), list[expected])
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException, msgspec.ValidationError) as e:
        raise CodecError(f"not a message of this link: {e}") from None


def decode_answer(m: Answered, question: Question[A]) -> A:
    """What a router has answered to a question.

    Raises:
        CodecError: it is no answer to this question.
    """
    try:
        return cast(A, msgspec.convert(m.answer, question.answer_type()))
    except msgspec.ValidationError as e:
        raise CodecError(f"{m.router}: no answer to {type(question).__name__}: {e}") from None


def encode_plain(value: Any) -> bytes:
    """A map for people at a REPL: see `decode_plain`. value: the map, or the answer to a question."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(value))
    return packed


def decode_plain(frame: bytes) -> dict[str, Any] | None:
    """What a person asked from a REPL with zmq.REQ: a map such as `{"locate": "7"}`. Nothing if it is not a map."""
    if not frame or not (frame[0] & 0xF0 == 0x80 or frame[0] in (0xDE, 0xDF)):  # msgpack: fixmap, map 16, map 32
        return None
    try:
        value = msgpack.unpackb(frame)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None
    return value if isinstance(value, dict) else None

"""What requests ask for beside their bodies: the names in their paths, and what stands behind the question mark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from zim.fabric.limits import LARGEST, MESSAGES, NAME_BYTES, OFFSET, STREAM_BYTES, WAIT_S
from zim.fabric.names import NAME, NAME_PATTERN, is_name
from zim.fabric.streams import EVERYBODY, ROOM, STREAM, STREAM_PATTERN, is_room, is_stream
from zim.web.reading import invalid

_AFTER = "an offset, from 0 up: messages behind it are answered"
_LIMIT = f"how many messages at most, 1 to {MESSAGES}"
_LARGEST = f"how many rooms at most, 1 to {LARGEST}"
_WAIT = f"seconds, 0 to {WAIT_S:.0f}, to wait until it is final: nothing is pending, and no report awaited"


class HistoryQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which piece of a stream."""

    after: Annotated[int, Meta(ge=0, le=OFFSET, description=_AFTER)] = 0
    limit: Annotated[int, Meta(ge=1, le=MESSAGES, description=_LIMIT)] = 100


class ReceiptQuery(msgspec.Struct, forbid_unknown_fields=True):
    """How long to wait for a receipt."""

    wait_s: Annotated[float, Meta(ge=0, le=WAIT_S, description=_WAIT)] = 0.0


class RoomsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """How many rooms."""

    limit: Annotated[int, Meta(ge=1, le=LARGEST, description=_LARGEST)] = 100


class NoQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing."""


@dataclass(frozen=True)
class InPath:
    """What a name in a path may be.

    Attributes:
        is_right: whether it is.
        right: what would be right, for people.
        schema: the same for programs.
    """

    is_right: Callable[[str], bool]
    right: str
    schema: dict[str, Any]


_NAME = {"type": "string", "minLength": 1, "maxLength": NAME_BYTES, "pattern": NAME_PATTERN}
_ANY_NAME = InPath(is_name, NAME, _NAME)
IN_PATH = {
    "uid": _ANY_NAME,
    "id": _ANY_NAME,
    "room": InPath(is_room, ROOM, {**_NAME, "not": {"const": EVERYBODY}}),
    "stream": InPath(is_stream, STREAM, {"type": "string", "maxLength": STREAM_BYTES, "pattern": STREAM_PATTERN}),
}


def parse_name(kind: str, segment: str) -> str:
    """The name in a segment of a path.

    Args:
        kind: which one of IN_PATH it is.
        segment: percent-encoded.

    Raises:
        Problem: nothing can be called so.
    """
    try:
        name = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        name = ""
    if not IN_PATH[kind].is_right(name):
        raise invalid("path", f"{segment} is no {kind}", f"percent-encoded, {IN_PATH[kind].right}")
    return name

"""What requests without a body ask for: what stands in the path, and behind the question mark."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta

from zim.fabric.streams import EVERYBODY, is_user_stream, room_stream
from zim.web.names import NAME, is_name
from zim.web.push import MAX_WAIT_S
from zim.web.reading import Reader, invalid

MAX_MESSAGES = 1_000  # in one answer

_AFTER = "an offset, from 0 up: messages behind it are answered"
_LIMIT = f"how many messages at most, 1 to {MAX_MESSAGES}"
_WAIT = "seconds, 0 to 30, to wait until nothing of it is pending"


class HistoryQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which piece of a stream."""

    after: Annotated[int, Meta(ge=0, le=(1 << 63) - 1, description=_AFTER)] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_MESSAGES, description=_LIMIT)] = 100


class ReceiptQuery(msgspec.Struct, forbid_unknown_fields=True):
    """How long to wait for a receipt."""

    wait_s: Annotated[float, Meta(ge=0, le=MAX_WAIT_S, description=_WAIT)] = 0.0


class NoQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing."""


HISTORY_QUERY = Reader(HistoryQuery)
RECEIPT_QUERY = Reader(ReceiptQuery)
NO_QUERY = Reader(NoQuery)


def name_in_path(path: str, before: str, behind: str = "") -> str:
    """The name between two fixed pieces of a path.

    Args:
        path: as WSGI gives it, without percent signs and its bytes read as Latin-1; it has both pieces.

    Raises:
        Problem: nothing can be called so.
    """
    part = path[len(before) : len(path) - len(behind)].encode("latin-1")
    try:
        name = part.decode()
    except UnicodeDecodeError:
        name = ""
    if not is_name(name):
        raise invalid("path", f"{quote(part)} is no name", f"percent-encoded, {NAME}")
    return name


def stream_in_path(path: str, before: str) -> str:
    """The stream at the end of a path.

    Raises:
        Problem: nothing can be called so.
    """
    stream = name_in_path(path, before)
    is_room = stream.startswith("r:") and stream[2:] and room_stream(stream[2:]) == stream
    if stream != EVERYBODY and not is_room and not (is_user_stream(stream) and stream[2:]):
        raise invalid("path", f"{quote(stream)} is no stream", "u:<uid>, r:<room> or *, percent-encoded")
    return stream

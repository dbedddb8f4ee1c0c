"""The bodies of zim's own dialect, version 3: JSON ⇄ values. The packets around them are `zim.protocol.client`'s.

    op                      body
    7 auth                  {"token": "7", "rooms": ["a"], "resume": {"u:7": ["epoch", 12]}, "device": …, "platform": …}
    8 auth reply            {"key": "7_1", "heartbeat_s": 300, "streams": {stream: start}}
    20 join, 21 joined      {"rooms": ["a"], "resume": {…}}, {"streams": {stream: start}}
    22 leave, 23 left       {"rooms": ["a"]}, {"streams": ["r:a"]}
    24, 25 acknowledge(d)   {"u:7": 12}
    26 gap                  {"stream", "epoch", "from", "to", "reason"}
    6 disconnect            {"reason": …}

where start is {"epoch", "offset", "recovered"}, or {"error"}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from zim.fabric.limits import OFFSET
from zim.fabric.streams import ROOM, is_room, room_stream
from zim.protocol.errors import WireError

STREAMS = 1_000  # rooms of one session, and streams of one resume
NOT_ALLOWED = "not allowed"
RETRYING = "not joined, retrying"
JOINED_ALREADY = "joined already"

T = TypeVar("T")

Offset = Annotated[int, msgspec.Meta(ge=0, le=OFFSET)]
Resume = Mapping[str, tuple[str, int]]  # stream → epoch, offset


class Auth(msgspec.Struct, frozen=True):
    """What a client says first. rooms: None for those that its token has."""

    token: str | int
    rooms: tuple[str, ...] | None = None
    resume: dict[str, tuple[str, Offset]] = {}
    device: str = ""
    platform: str = ""


class Join(msgspec.Struct, frozen=True):
    """Rooms that it wants to be in."""

    rooms: tuple[str, ...]
    resume: dict[str, tuple[str, Offset]] = {}


class Leave(msgspec.Struct, frozen=True):
    """Rooms that it wants to be out of."""

    rooms: tuple[str, ...]


class Start(NamedTuple):
    """Where a client starts in a stream.

    Attributes:
        stream: its canonical name.
        epoch: which history the offset belongs to.
        offset: everything after it will come.
        recovered: nothing is missing between what the client had and that.
        error: why it is not in the stream; "" if it is.
    """

    stream: str
    epoch: str = ""
    offset: int = 0
    recovered: bool = True
    error: str = ""


class Gap(NamedTuple):
    """Messages of a stream that will not come: from…to; the next one is to + 1, of that epoch."""

    stream: str
    epoch: str
    first: int
    last: int
    reason: str


def refusals(rooms: Sequence[str]) -> list[Start]:
    """Rooms that a client may not be in."""
    return [Start(room_stream(room), error=NOT_ALLOWED) for room in rooms]


def _parse(body: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise WireError(f"{what}: {e}") from None


def _check_rooms(rooms: Sequence[str]) -> None:
    if len(rooms) > STREAMS:
        raise WireError(f"more than {STREAMS} rooms")
    for room in rooms:
        if not is_room(room):
            raise WireError(f"rooms: a name is {ROOM}")


def parse_auth(body: bytes) -> Auth:
    """Raises:
    WireError: it is not an auth of version 3.
    """
    auth = _parse(body, Auth, "auth")
    _check_rooms(auth.rooms or ())
    if len(auth.resume) > STREAMS:
        raise WireError(f"resume has more than {STREAMS} streams")
    return auth


def parse_join(body: bytes) -> Join:
    """Raises:
    WireError: it is not a join.
    """
    join = _parse(body, Join, "join")
    _check_rooms(join.rooms)
    if len(join.resume) > STREAMS:
        raise WireError(f"resume has more than {STREAMS} streams")
    return join


def parse_leave(body: bytes) -> Leave:
    """Raises:
    WireError: it is not a leave.
    """
    leave = _parse(body, Leave, "leave")
    _check_rooms(leave.rooms)
    return leave


def parse_acknowledge(body: bytes) -> dict[str, int]:
    """Raises:
    WireError: it is not an acknowledgement.
    """
    return _parse(body, dict[str, Offset], "acknowledge")


def token(auth: Auth) -> bytes:
    """The token, as the token handler gets it."""
    return str(auth.token).encode()


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _starts(starts: Sequence[Start]) -> dict[str, Any]:
    return {
        s.stream: {"error": s.error} if s.error else {"epoch": s.epoch, "offset": s.offset, "recovered": s.recovered}
        for s in starts
    }


def auth_reply(key: str, heartbeat_s: float, starts: Sequence[Start]) -> bytes:
    """The body of op 8."""
    return _json({"key": key, "heartbeat_s": heartbeat_s, "streams": _starts(starts)})


def joined(starts: Sequence[Start]) -> bytes:
    """The body of op 21."""
    return _json({"streams": _starts(starts)})


def left(streams: Sequence[str]) -> bytes:
    """The body of op 23."""
    return _json({"streams": list(streams)})


def acknowledged(stream: str, offset: int) -> bytes:
    """The body of op 25."""
    return _json({stream: offset})


def gap(gap: Gap) -> bytes:
    """The body of op 26."""
    return _json({"stream": gap.stream, "epoch": gap.epoch, "from": gap.first, "to": gap.last, "reason": gap.reason})


def disconnect(reason: str) -> bytes:
    """The body of op 6."""
    return _json({"reason": reason})

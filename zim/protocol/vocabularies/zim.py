"""zim's own, version 3: clients that know streams and offsets, and resume. Bodies are JSON.

    op                      body
    7 auth                  {"token": "7", "rooms": ["a"], "resume": {"u:7": ["epoch", 12]}, "device": …, "platform": …}
    8 auth reply            {"key": "7_1", "heartbeat_s": 300, "expires_s": 3600, "streams": {stream: start}}
    20 join, 21 joined      {"rooms": ["a"], "resume": {…}}, {"streams": {stream: start}}
    22 leave, 23 left       {"rooms": ["a"]}, {"streams": ["r:a"]}
    24, 25 acknowledge(d)   {"u:7": 12}
    26 gap                  {"stream", "epoch", "from", "to", "reason"}
    27 refresh, 28          {"token": …}, {"expires_s": 3600} or {"error": "try again"}
    29 history              {"stream": "r:a", "after": 12, "limit": 100}
    30 its reply            {"stream", "epoch", "first", "head", "last", "messages": […]} or {"stream", "error"}
    6 disconnect            {"reason": …, "code": 4200}; to another comet {…, "after_s": 0.2, "to": ["127.0.0.1:8081"]}

where start is {"epoch", "offset", "recovered"}, or {"error"}; expires_s is there if the token ends. A message of a
history is {"offset", "time_ms", "op", "body"}, with "base64" instead of "body" where that is no JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from typing_extensions import override

from zim.fabric.limits import ROOMS
from zim.fabric.names import NAME, is_name
from zim.fabric.streams import ROOM, is_room, room_stream
from zim.json_text import ESCAPED_HALF, as_json, twice_there
from zim.protocol.endings import Ending
from zim.protocol.errors import WireError
from zim.protocol.fields import Limit
from zim.protocol.frame import VERSION, Op, Packet
from zim.protocol.vocabularies.base import (
    Cursors,
    Join,
    KeptRecord,
    Leave,
    Login,
    Missed,
    Offset,
    Onward,
    Past,
    ReadHistory,
    Refresh,
    Start,
    Vocabulary,
)

NOT_ALLOWED = "not allowed"
RETRYING = "not joined, retrying"
JOINED_ALREADY = "joined already"

_RIGHT = {
    "auth": '{"token":7}',
    "join": '{"rooms":["lobby"]}',
    "leave": '{"rooms":["lobby"]}',
    "acknowledge": '{"u:7":12}',
    "refresh": '{"token":"eyJhbGciOi…"}',
    "history": '{"stream":"r:lobby"}',
}

MAX_SHOWN = 100  # characters of what a client wrote
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)

_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`(?: - at `\$\.?([^`]*)`)?$")  # msgspec's words
_A = {"str": "a text", "int": "a whole number", "float": "a number", "array": "an array", "object": "an object"}

T = TypeVar("T")


class _Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an auth packet. null is absence."""

    token: str | int | None = None
    rooms: tuple[str, ...] | None = None
    resume: dict[str, tuple[str, Offset]] | None = None
    device: str | None = None
    platform: str | None = None


class _Refresh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a refresh packet."""

    token: str | int


class _History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a history packet."""

    stream: Annotated[str, msgspec.Meta(min_length=1)]
    after: Offset | None = None
    limit: Limit | None = None


def refusals(rooms: Sequence[str], why: str = NOT_ALLOWED) -> list[Start]:
    """Rooms that a client may not be in."""
    return [Start(room_stream(room), error=why) for room in rooms]


def _named(kind: str) -> str:
    return _A.get(kind, kind)


def _parse(body: bytes, kind: type[T], what: str, ending: Ending = Ending.REQUEST) -> T:
    try:
        said = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        why = str(e)
        if (unknown := _UNKNOWN_FIELD.match(why)) is not None:
            why = f"no field is called {unknown[1][:MAX_SHOWN]}; there are {', '.join(kind.__struct_fields__)}"  # type: ignore[attr-defined]
        elif not body:
            why = f"the packet has no body; right is {_RIGHT[what]}"
        elif body.lstrip()[:1] != b"{":
            why = f"it is no object; right is {_RIGHT[what]}"
        elif (missing := _MISSING.match(why)) is not None:
            why = f"{missing[1]} is missing; right is {_RIGHT[what]}"
        elif (wrong := _WRONG_TYPE.match(why)) is not None:
            right, got, path = wrong.groups()
            why = f"{path or 'it'} is {_named(got)}; right is {' or '.join(map(_named, right.split(' | ')))}"
        elif "surrogate" in why or ("truncated" in why and ESCAPED_HALF.search(body)):
            why = "a name, or a token, has half a surrogate pair"
        raise WireError(f"{what}: {why}", ending=ending) from None
    if twice := twice_there(body):
        raise WireError(f"{what}: {twice[:MAX_SHOWN]} is there twice", ending=ending)
    return said


def _check(rooms: Sequence[str], resume: Mapping[str, Any], ending: Ending = Ending.REQUEST) -> None:
    why = ""
    if len(rooms) > ROOMS:
        why = f"more than {ROOMS} rooms"
    elif not all(map(is_room, rooms)):
        why = f"rooms: a name is {ROOM}"
    elif len(resume) > ROOMS:
        why = f"resume has more than {ROOMS} streams"
    if why:
        raise WireError(why, ending=ending)


def parse_join(body: bytes) -> Join:
    """Raises:
    WireError: it is not a join.
    """
    join = _parse(body, Join, "join")
    _check(join.rooms, join.resume or {})
    return join


def parse_leave(body: bytes) -> Leave:
    """Raises:
    WireError: it is not a leave.
    """
    leave = _parse(body, Leave, "leave")
    _check(leave.rooms, {})
    return leave


def parse_cursors(body: bytes) -> Cursors:
    """Raises:
    WireError: it is not an acknowledgement.
    """
    said = _parse(body, dict[str, Offset | None], "acknowledge")
    return Cursors({stream: offset for stream, offset in said.items() if offset is not None})


def parse_refresh(body: bytes) -> Refresh:
    """Raises:
    WireError: it is none.
    """
    return Refresh(str(_parse(body, _Refresh, "refresh").token).encode())


def parse_history(body: bytes) -> ReadHistory:
    """Raises:
    WireError: it is none.
    """
    said = _parse(body, _History, "history")
    given = {"after": said.after, "limit": said.limit}
    return ReadHistory(said.stream, **{name: value for name, value in given.items() if value is not None})


def _told(record: KeptRecord) -> dict[str, Any]:
    json = as_json(record.body)
    body = {"base64": record.body} if json is None else {"body": json}
    return {"offset": record.offset, "time_ms": record.time_ms, "op": record.op, **body}


def _ends(expires_s: float | None) -> dict[str, float]:
    return {} if expires_s is None else {"expires_s": round(expires_s, 3)}


def _packet(op: int, seq: int, body: Any) -> Packet:
    return Packet(op, seq, VERSION, msgspec.json.encode(body))


def _starts(starts: Sequence[Start]) -> dict[str, Any]:
    return {
        s.stream: {"error": s.error} if s.error else {"epoch": s.epoch, "offset": s.offset, "recovered": s.recovered}
        for s in starts
    }


class Zim(Vocabulary):
    """See the module."""

    __slots__ = ()
    version = VERSION
    requests = {  # noqa: RUF012 a ClassVar
        Op.JOIN: parse_join,
        Op.LEAVE: parse_leave,
        Op.ACKNOWLEDGE: parse_cursors,
        Op.REFRESH: parse_refresh,
        Op.HISTORY: parse_history,
    }
    tells_places = tells_starts = has_cursors = resumes = True

    @override
    def parse_login(self, body: bytes) -> Login:
        auth = _parse(body, _Auth, "auth", Ending.AUTH)
        _check(auth.rooms or (), auth.resume or {}, Ending.AUTH)
        if auth.device and not is_name(auth.device):
            raise WireError(f"auth: device: a class of devices is {NAME}", ending=Ending.AUTH)
        token = b"" if auth.token is None else str(auth.token).encode()
        return Login(token, auth.rooms, auth.resume or {}, auth.device or "")

    @override
    def encode_push(self, op: int, body: bytes, stream: str, offset: int) -> Packet:
        return Packet(op, 0, VERSION, body, stream, offset)

    @override
    def encode_opened(
        self, asked: Packet, key: str, heartbeat_s: float, starts: Sequence[Start], expires_s: float | None
    ) -> Packet:
        body = {"key": key, "heartbeat_s": heartbeat_s, **_ends(expires_s), "streams": _starts(starts)}
        return _packet(Op.AUTH_REPLY, asked.seq, body)

    @override
    def encode_joined(self, seq: int, starts: Sequence[Start]) -> Packet:
        return _packet(Op.JOINED, seq, {"streams": _starts(starts)})

    @override
    def encode_left(self, seq: int, streams: Sequence[str], reason: str = "") -> Packet:
        return _packet(Op.LEFT, seq, {"streams": list(streams), **({"reason": reason} if reason else {})})

    @override
    def encode_acknowledged(self, seq: int, stream: str, offset: int) -> Packet:
        return _packet(Op.ACKNOWLEDGED, seq, {stream: offset})

    @override
    def encode_refreshed(self, seq: int, expires_s: float | None, error: str = "") -> Packet:
        return _packet(Op.REFRESHED, seq, {**_ends(expires_s), **({"error": error} if error else {})})

    @override
    def encode_history(self, seq: int, past: Past) -> Packet:
        if past.error:
            return _packet(Op.HISTORY_REPLY, seq, {"stream": past.stream, "error": past.error})
        at = {"stream": past.stream, "epoch": past.epoch, "first": past.first, "head": past.head, "last": past.last}
        return _packet(Op.HISTORY_REPLY, seq, {**at, "messages": list(map(_told, past.records))})

    @override
    def encode_missed(self, missed: Missed) -> Packet:
        stream, epoch, first, last, reason = missed
        return _packet(Op.GAP, 0, {"stream": stream, "epoch": epoch, "from": first, "to": last, "reason": reason})

    @override
    def encode_farewell(self, reason: str, ending: Ending, onward: Onward | None = None) -> Packet:
        where: dict[str, Any] = {}
        if onward is not None:
            where = {"after_s": round(onward.after_s, 3), **({"to": onward.to} if onward.to else {})}
        return _packet(Op.DISCONNECT, 0, {"reason": reason, "code": ending.zim_code, **where})

    @override
    def close_code(self, ending: Ending) -> int:
        return ending.zim_code


ZIM = Zim()

"""What a backend may do with people, under `/api/`: kick, ban, move them between rooms. The audit has each of it.

An order is answered when the routers have it; comets obey within a second. A ban is on the disk when it is answered.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

import msgspec
from flask import Response, request
from msgspec import UNSET, Meta, UnsetType

from zim.fabric.answers import KeptBan, KeptBans, Lifted, Reached
from zim.fabric.bans import Banned, parse_network
from zim.fabric.limits import BAN_S, BANNED_NETWORKS, BANS, LARGEST, NAME_BYTES, REASON_CHARS
from zim.fabric.names import CHARACTER_PATTERN, NAME, NAME_PATTERN, is_name
from zim.fabric.questions import BanList, BanWho, KickRoom, KickUser, LiftBan, MoveUser
from zim.fabric.streams import ROOM, SESSION_KEY, is_room, user_of_key
from zim.web.problems import TOO_LARGE, UNAVAILABLE, UNKNOWN, Problem
from zim.web.push import NameField, NumberField, SessionKeyField
from zim.web.reading import Reader, invalid
from zim.web.routes import ApiRequest, Route, respond_json

audit = logging.getLogger("zim.audit")

KICK, BANS_PATH = "/api/kick", "/api/bans"
MOVED_ROOMS = 100  # of one request

_REASON = f"for the client and for people, at most {REASON_CHARS} characters"
_Reason = Annotated[str, Meta(max_length=REASON_CHARS, description=_REASON)]
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = {"pattern": rf"^({_BYTE}\.){{3}}{_BYTE}(/([1-9]|[12][0-9]|3[0-2]))?$"}
_ROOM_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": NAME_BYTES, "pattern": NAME_PATTERN, "not": {"const": "*"}}
_ADDRESS_SCHEMA: dict[str, Any] = {"anyOf": [_IPV4, {"format": "ipv6"}]}
_NAME_OR_NONE: dict[str, Any] = {"maxLength": NAME_BYTES, "pattern": f"^{CHARACTER_PATTERN}*$"}

_User = Annotated[
    NameField | NumberField, Meta(description=f"a user: a string, {NAME}, or an integer; 7 is the user '7'")
]
_About = "of this user only sessions of this class of devices"
_Device = Annotated[str, Meta(description=_About, extra_json_schema=_NAME_OR_NONE)]
_Where = "an address, 203.0.113.7, or a network, 203.0.113.0/24"
_Address = Annotated[str, Meta(description=_Where, extra_json_schema=_ADDRESS_SCHEMA)]
_Room = Annotated[str, Meta(description=f"all who are in a room: {ROOM}", extra_json_schema=_ROOM_SCHEMA)]
_Moved = Annotated[str, Meta(extra_json_schema=_ROOM_SCHEMA)]
_Rooms = Annotated[list[_Moved], Meta(max_length=MOVED_ROOMS, description=f"rooms, at most {MOVED_ROOMS}: {ROOM}")]
_Key = Annotated[SessionKeyField, Meta(description=f"a session's key: {SESSION_KEY}")]


class KickRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Who is to go: one of user, key and room."""

    user: _User | UnsetType = UNSET
    device: _Device = ""
    key: _Key | UnsetType = UNSET
    room: _Room | UnsetType = UNSET
    what: Annotated[Literal["session", "room"], Meta(description="session: off the fabric; room: out of that room")] = (
        "session"
    )
    reason: _Reason = ""
    may_return: Annotated[bool, Meta(description="false: clients are told not to come back by themselves")] = False


class BanRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Who may not come in: one of user and address."""

    user: _User | UnsetType = UNSET
    device: _Device = ""
    address: _Address | UnsetType = UNSET
    reason: _Reason = ""
    for_s: Annotated[float, Meta(gt=0, le=BAN_S, description="seconds; without it, for ever")] | UnsetType = UNSET


class MoveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which rooms a user's sessions are to be in, and in which not."""

    join: _Rooms = []
    leave: _Rooms = []
    reason: _Reason = ""


class WhomQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Whose ban: one of user and address."""

    user: Annotated[NameField, Meta(description=f"a user: {NAME}")] | UnsetType = UNSET
    device: _Device = ""
    address: _Address | UnsetType = UNSET


class BansQuery(msgspec.Struct, forbid_unknown_fields=True):
    """How many bans."""

    limit: Annotated[int, Meta(ge=1, le=LARGEST, description=f"how many at most, 1 to {LARGEST}")] = 100


_KICK, _BAN, _MOVE = Reader(KickRequest), Reader(BanRequest), Reader(MoveRequest)


def kick(asked: ApiRequest) -> Response:
    """Close sessions of a user, one session, or all in a room; or send these out of the room."""
    wanted = _KICK.read(request.get_data(cache=False))
    named = [name for name in ("user", "key", "room") if getattr(wanted, name) is not UNSET]
    if len(named) != 1:
        raise invalid(named[1] if named else "user", f"there are {len(named)} of them", "one of user, key and room")
    if wanted.room is not UNSET:
        if wanted.device:
            raise invalid("device", "it is there with a room", "a user beside it")
        question = KickRoom(_room(wanted.room, "room"), wanted.what == "session", wanted.reason, wanted.may_return)
        found = asked.fabric.ask(question, asked.who)
    else:
        if wanted.device and wanted.key is not UNSET:
            raise invalid("device", "it is there with a key", "a user beside it")
        if wanted.what == "room":
            raise invalid("what", '"room" is for a room', 'room beside it; for a user see "leave" of the user\'s rooms')
        uid, seq = ("", 0) if wanted.user is UNSET else (_user(str(wanted.user)), 0)
        if wanted.key is not UNSET:
            uid = user_of_key(wanted.key)
            if not uid:
                raise invalid("key", f"{wanted.key[:40]!r} is no session's key", SESSION_KEY)
            seq = int(wanted.key.rpartition("_")[2])
        kicking = KickUser(uid, _device(wanted.device), seq, wanted.reason, wanted.may_return)
        found = asked.fabric.ask(kicking, asked.who)
    _say("kicked", asked, **{named[0]: getattr(wanted, named[0])}, reason=wanted.reason, sessions=found.sessions)
    return respond_json(found)


def move(asked: ApiRequest) -> Response:
    """Let all sessions of a user join and leave rooms, whatever their tokens say."""
    wanted = _MOVE.read(request.get_data(cache=False))
    join = tuple(_room(room, f"join[{i}]") for i, room in enumerate(wanted.join))
    leave = tuple(_room(room, f"leave[{i}]") for i, room in enumerate(wanted.leave))
    if not join and not leave:
        raise invalid("join", "it is empty, and so is leave", "rooms in one of the two")
    found = asked.fabric.ask(MoveUser(asked.name, join, leave, wanted.reason), asked.who)
    _say("moved", asked, user=asked.name, join=len(join), leave=len(leave), sessions=found.sessions)
    return respond_json(found)


def ban(asked: ApiRequest) -> Response:
    """Let nobody in who is meant, from now on and after any restart, and close their sessions."""
    wanted = _BAN.read(request.get_data(cache=False))
    user = UNSET if wanted.user is UNSET else str(wanted.user)
    banned = _banned(user, wanted.device, wanted.address)
    for_s = 0.0 if wanted.for_s is UNSET else wanted.for_s
    found = asked.fabric.ask(BanWho(banned, wanted.reason, asked.who.id, for_s), asked.who)
    if not found.is_kept:
        raise Problem(TOO_LARGE, f"a router keeps {BANS} bans, {BANNED_NETWORKS} of networks; lift some", limit=BANS)
    _say("banned", asked, **_about(banned), reason=wanted.reason, for_s=for_s or "ever", sessions=found.sessions)
    return respond_json(found)


def lift(asked: ApiRequest) -> Response:
    """End a ban."""
    query = asked.query
    banned = _banned(query.user, query.device, query.address)
    found = asked.fabric.ask(LiftBan(banned), asked.who)
    _say("ban lifted", asked, **_about(banned), was_banned=found.was_banned)
    return respond_json(found)


def bans(asked: ApiRequest) -> Response:
    """Who is banned: the newest bans."""
    return respond_json(asked.fabric.ask(BanList(asked.query.limit), asked.who))


_ORDERED = (UNAVAILABLE, UNKNOWN)

ROUTES = (
    Route("POST", KICK, "kick", kick, Reached, body=KickRequest, problems=_ORDERED, scope="kick"),
    Route("POST", "/api/users/{uid}/rooms", "move", move, Reached, body=MoveRequest, problems=_ORDERED, scope="kick"),
    Route("POST", BANS_PATH, "ban", ban, KeptBan, body=BanRequest, problems=_ORDERED, scope="ban"),
    Route("DELETE", BANS_PATH, "lift", lift, Lifted, query=WhomQuery, problems=_ORDERED, scope="ban"),
    Route("GET", BANS_PATH, "bans", bans, KeptBans, query=BansQuery, scope="ban"),
)


def _user(name: str) -> str:
    if not is_name(name):
        raise invalid("user", f"nobody can be called {name[:40]!r}", NAME)
    return name


def _room(name: str, where: str) -> str:
    if not is_room(name):
        raise invalid(where, f"no room can be called {name[:40]!r}", ROOM)
    return name


def _device(name: str) -> str:
    if name and not is_name(name):
        raise invalid("device", f"{name[:40]!r} is no class of devices", NAME)
    return name


def _banned(user: str | UnsetType, device: str, address: str | UnsetType) -> Banned:
    if user is not UNSET:
        if address is not UNSET:
            raise invalid("user", "it is there, and so is address", "one of user and address")
        return Banned(_user(user), _device(device))
    if address is UNSET:
        raise invalid("user", "it is missing, and so is address", "one of user and address")
    if device:
        raise invalid("device", "it is there with an address", "a user beside it")
    try:
        return Banned(network=parse_network(address))
    except ValueError as e:
        raise invalid(
            "address", str(e), "an address such as 203.0.113.7, or a network such as 203.0.113.0/24"
        ) from None


def _about(banned: Banned) -> dict[str, Any]:
    found = {"user": banned.user, "device": banned.device, "address": banned.network}
    return {name: value for name, value in found.items() if value}


def _say(event: str, asked: ApiRequest, **fields: Any) -> None:
    """A line of the audit: who did what."""
    audit.info(event, extra={"by": asked.who.id, "client": request.environ.get("REMOTE_ADDR", ""), **fields})

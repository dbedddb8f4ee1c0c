"""Canonical names of streams: `u:7` is a user's, `r:1` a room's, `*` everybody's. Hashed in UTF-8."""

from __future__ import annotations

import re

from zim.fabric.names import CHARACTER_PATTERN, NAME, is_name, shown

EVERYBODY = "*"  # a stream, and the room that everybody is in

ROOM = f"{NAME}, and not {EVERYBODY}, which is everybody"
STREAM = f"u:<uid>, r:<room> or {EVERYBODY}; uid and room are {NAME}, and no room is {EVERYBODY}"
SESSION_KEY = "uid_seq, such as 7_12: the user 7, and the number of the session"

_ROOM_PATTERN = f"{CHARACTER_PATTERN.replace(']', '*]')}|{CHARACTER_PATTERN}{{2,}}"
STREAM_PATTERN = rf"^(\*|u:{CHARACTER_PATTERN}+|r:({_ROOM_PATTERN}))$"
SESSION_KEY_PATTERN = f"^{CHARACTER_PATTERN}+_[1-9][0-9]{{0,18}}$"

_SESSION_KEY = re.compile(r"(.+)_([1-9][0-9]{0,18})", re.DOTALL)


def user_stream(uid: str) -> str:
    """The stream of a user."""
    return "u:" + uid


def user_of(stream: str) -> str:
    """The user of a user's stream."""
    return stream.removeprefix("u:")


def room_stream(room: str) -> str:
    """The stream of a room; `*` is its own."""
    return room if room == EVERYBODY else "r:" + room


def room_of(stream: str) -> str:
    """The room of a room's stream."""
    return stream.removeprefix("r:")


def is_user_stream(stream: str) -> bool:
    """Whether it is a user's."""
    return stream.startswith("u:")


def is_room(name: str) -> bool:
    """Whether a room may be called so."""
    return name != EVERYBODY and is_name(name)


def is_stream(stream: str) -> bool:
    """Whether it is the name of a stream."""
    if stream.startswith("u:"):
        return is_name(stream[2:])
    return stream == EVERYBODY or (stream.startswith("r:") and is_room(stream[2:]))


def name_problem(stream: str) -> str:
    """What is wrong with a stream's name, for people; "" if nothing is."""
    return "" if is_stream(stream) else f"{shown(stream)} is no stream; right is {STREAM}"


def user_of_key(key: str) -> str:
    """The user of a session key, `7` in `7_12`; "" if it is none."""
    match = _SESSION_KEY.fullmatch(key)
    return match[1] if match and is_name(match[1]) else ""

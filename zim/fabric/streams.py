"""Canonical names of streams: `u:7` is a user's, `r:1` a room's, `*` everybody's. Hashed in UTF-8."""

from __future__ import annotations

import re

_SESSION_KEY = re.compile(r"(.+)_([1-9][0-9]{0,18})", re.DOTALL)

EVERYBODY = "*"  # a stream, and the room that everybody is in


def user_stream(uid: str) -> str:
    """The stream of a user."""
    return "u:" + uid


def room_stream(room: str) -> str:
    """The stream of a room; `*` is its own."""
    return room if room == EVERYBODY else "r:" + room


def room_of(stream: str) -> str:
    """The room of a room's stream."""
    return stream.removeprefix("r:")


def is_user_stream(stream: str) -> bool:
    """Whether it is a user's."""
    return stream.startswith("u:")


def user_of_key(key: str) -> str:
    """The user of a session key, `7` in `7_12`; "" if it is none."""
    match = _SESSION_KEY.fullmatch(key)
    return match[1] if match else ""


NAME_BYTES = 255  # of a stream's name, in UTF-8


def name_problem(stream: str) -> str:
    """What is wrong with a stream's name, for people; "" if nothing is."""
    if stream == EVERYBODY:
        return ""
    if not stream.startswith(("u:", "r:")) or len(stream) == 2 or stream == "r:*":
        return f"{stream!r} is no stream; right is u:<uid>, r:<room> or *"
    try:
        size = len(stream.encode())
    except UnicodeEncodeError:
        return f"{stream!r} is not UTF-8"
    if size > NAME_BYTES:
        return f"{stream[:32]!r}… has {size} bytes; right are at most {NAME_BYTES}"
    if any(c < " " or c == "\x7f" for c in stream):
        return f"{stream!r} has control characters"
    return ""

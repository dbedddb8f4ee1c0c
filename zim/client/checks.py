"""What an application hands to a listener or a publisher: rooms, positions, keys, checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zim.client.errors import ClientError
from zim.client.values import Position
from zim.fabric.limits import OFFSET
from zim.fabric.names import shown
from zim.fabric.streams import ROOM, is_room


def check_rooms(rooms: Iterable[str | int]) -> set[str]:
    """Rooms' names. A string would be a room a letter. Raises: ClientError."""
    if isinstance(rooms, str | bytes) or not isinstance(rooms, Iterable):
        raise ClientError(f"rooms is a list of rooms, not {rooms!r:.100}; for one, write rooms=[{rooms!r:.100}]")
    return set(map(check_room, rooms))


def check_room(room: str | int) -> str:
    """A room's name. Raises: ClientError."""
    if isinstance(room, bool) or not isinstance(room, str | int):
        hint = "; for several, write join(*rooms)" if isinstance(room, list | tuple | set) else ""
        raise ClientError(f"no room can be called {room!r:.100}; right is a string or an integer{hint}")
    name = str(room)
    if not is_room(name):
        raise ClientError(f"no room can be called {shown(name)}; right is {ROOM}")
    return name


def check_resume(resume: Mapping[str, Sequence[Any]]) -> dict[str, Position]:
    """Positions, as `resume` gave them or as JSON kept them. Raises: ClientError."""
    if not isinstance(resume, Mapping):
        raise ClientError(f"resume is {{stream: [epoch, offset]}}, not {resume!r:.100}")
    positions = {}
    for stream, position in resume.items():
        match position:
            case [str(epoch), int(offset)] if 0 <= offset <= OFFSET and not isinstance(offset, bool):
                positions[str(stream)] = (epoch, offset)
            case other:
                raise ClientError(f"resume[{stream!r}] is not [epoch, offset] but {str(other)[:100]}")
    return positions


def read_server_keys(given: str | Sequence[str], count: int) -> list[bytes]:
    """One for each endpoint, or none at all.

    Raises:
        ClientError: one is none, or they are not as many.
    """
    keys = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    if keys == [""] or not keys:
        return []
    for key in keys:
        if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{64}", key):
            raise ClientError(f"{key!r:.80} is no server key; right are 64 hexadecimal digits, zim link-key list")
    if len(keys) != count:
        raise ClientError(f"there are {len(keys)} server keys and {count} endpoints; right is one for each, in order")
    return [bytes.fromhex(key) for key in keys]

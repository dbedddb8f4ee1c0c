"""What a token allows, or why it allows nothing: a grant, or a denial. Logic decides it, a comet keeps to it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from zim.fabric.limits import NAME_BYTES, PATTERNS, ROOMS, SESSIONS
from zim.fabric.names import NAME, is_name, shown
from zim.fabric.patterns import ANY, PATTERN, Patterns, is_pattern, matches
from zim.fabric.streams import ROOM, is_room

ANONYMOUS = "anonymous-"  # begins the name of somebody without a token
LIFETIME_S = 366 * 86_400.0  # of a grant that ends; a later end is no other than this one to anybody

Device = Annotated[str, Meta(max_length=NAME_BYTES)]


class Rights(NamedTuple):
    """What a session may do, the same value for all who may do the same.

    Attributes:
        rooms, join, read, asks: see Grant.
    """

    rooms: tuple[str, ...] = ()
    join: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    asks: bool = False

    def may_join(self, room: str) -> bool:
        """Whether a session may be in a room without asking."""
        return self.join == ANY or room in self.rooms or matches(room, self.join)

    def may_read(self, stream: str) -> bool:
        """Whether it may read a stream's history though it is not in it."""
        return matches(stream, self.read)


NO_RIGHTS = Rights()


@lru_cache(maxsize=4096)
def _shared(rights: Rights) -> Rights:
    """One object for all: there may be a hundred thousand of them."""
    return rights


class Grant(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Whom a token stands for, and what it allows.

    Attributes:
        user: whose sessions these are; canonical: the same user is always the same string.
        rooms: which a session is in from the start, unless its client names others.
        join: patterns of rooms that it may be in beside these.
        read: patterns of streams whose history it may read, beside those that it is in.
        device: the class of the device; "" where nobody says.
        lifetime_ms: when it ends, counted from now; 0 for never.
        asks: rooms beside these are asked about one by one.
        sessions: how many the user may have at once; 0 for what the topology says.
    """

    user: str
    rooms: Annotated[tuple[str, ...], Meta(max_length=ROOMS)] = ()
    join: Patterns = ()
    read: Patterns = ()
    device: Device = ""
    lifetime_ms: Annotated[int, Meta(ge=0, le=int(LIFETIME_S * 1000))] = 0
    asks: bool = False
    sessions: Annotated[int, Meta(ge=0, le=SESSIONS)] = 0

    @property
    def rights(self) -> Rights:
        """What a session may do that has it."""
        return _shared(Rights(self.rooms, self.join, self.read, self.asks))


class SessionPolicy(NamedTuple):
    """How many sessions a user may have at once.

    Attributes:
        per_user: all together; 0 for any number.
        per_device: of each class of devices; 0 for any number.
        newest_wins: the oldest one is closed; else who comes is refused.
    """

    per_user: int = 0
    per_device: int = 0
    newest_wins: bool = True


ANY_NUMBER = SessionPolicy()


# refused: it would be again; expired: another token would do; try_again: nobody can tell at the moment.
Code = Literal["refused", "expired", "try_again"]


class Denial(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why a token allows nothing.

    Attributes:
        code: what its client is to do.
        reason: for the client.
        detail: for the log alone.
        retry_ms: its user has come too often, and may come back then; 0 if that is not why.
    """

    code: Code
    reason: str
    detail: str = ""
    retry_ms: Annotated[int, Meta(ge=0, lt=1 << 53)] = 0


def grant_problem(grant: Grant) -> str:
    """What cannot be in a grant, for people; "" if all of it can."""
    if not is_name(grant.user):
        return f"nobody can be called {shown(grant.user)}; right is {NAME}"
    if len(grant.rooms) > ROOMS:
        return f"{len(grant.rooms)} rooms; right is at most {ROOMS}"
    for room in grant.rooms:
        if not is_room(room):
            return f"no room can be called {shown(room)}; right is {ROOM}"
    return _pattern_problem(grant.join) or _pattern_problem(grant.read) or _device_problem(grant.device)


def _pattern_problem(patterns: Sequence[str]) -> str:
    if len(patterns) > PATTERNS:
        return f"{len(patterns)} patterns; right is at most {PATTERNS}"
    wrong = next((pattern for pattern in patterns if not is_pattern(pattern)), None)
    return "" if wrong is None else f"{shown(wrong)} is no pattern; right is {PATTERN}"


def _device_problem(device: str) -> str:
    return "" if not device or is_name(device) else f"{shown(device)} is no class of devices; right is {NAME}"

"""A push: what a backend asks for, whom it is for, what it may be, and what became of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from zim.errors import ZimError
from zim.fabric.limits import RECIPIENTS, SESSIONS, TTL_S
from zim.fabric.names import KEY, NAME, is_key, is_name, shown
from zim.fabric.pauses import Pause, no_pause, paused
from zim.fabric.streams import (
    EVERYBODY,
    ROOM,
    SESSION_KEY,
    STREAM,
    is_room,
    is_stream,
    room_stream,
    user_of_key,
    user_stream,
)

Status = Literal["ok", "unavailable", "unknown", "conflict", "forbidden", "limited"]

PUSH_OP = 5  # of a packet that brings a pushed message, unless the push says another
FIRST_OP, LAST_OP = 100, (1 << 31) - 1  # below it are goim's and zim's own; above it nothing fits into a packet
TEST_OPS = (254, 255)  # goim's own, too

OP = f"{PUSH_OP}, or {FIRST_OP} up to {LAST_OP} but not 254 and 255"
SESSIONS_OF_A_USER = f"at most {SESSIONS:,} of them; or the user in users, then all sessions get it"
TTL = f"at most {TTL_S / 86_400:.0f} days, in seconds"


class WrongValue(ZimError):
    """A value of a push that cannot be.

    Attributes:
        where: which one: `to.users[1]`, `op`.
        why: what is wrong with it.
        right: what would be right.
    """

    def __init__(self, where: str, why: str, right: str) -> None:
        super().__init__(f"{where}: {why}; right is {right}")
        self.where, self.why, self.right = where, why, right


@dataclass(frozen=True, slots=True)
class Push:
    """What a backend asks for.

    Attributes:
        streams: canonical names, `u:7`, `r:1`, `*`; never twice the same, never none.
        body: the application's bytes.
        op: of the packet that clients get.
        key: the publisher's idempotency key; "" for none.
        ttl_s: for how long it is worth being handed out; 0 for ever.
        only: session keys, `7_12`. A user's stream that one of them belongs to is for these sessions alone.
    """

    streams: Sequence[str]
    body: bytes
    op: int = PUSH_OP
    key: str = ""
    ttl_s: float = 0.0
    only: tuple[str, ...] = ()


class Refusal(NamedTuple):
    """Somebody does more than a limit allows.

    Attributes:
        limit: its name, a key of `[limits]`.
        wait_s: after how long it may be tried again.
        stream: which one gets too much; "" if it is not about one.
    """

    limit: str
    wait_s: float
    stream: str = ""

    @property
    def retry_after_s(self) -> int:
        """Whole seconds, for Retry-After: at least 1."""
        return max(1, math.ceil(self.wait_s))

    @property
    def why(self) -> str:
        """For people."""
        at = f" into {shown(self.stream)}" if self.stream else ""
        return f"more{at} than {self.limit} allows; try again in {self.wait_s:.3g} s"


class Part(msgspec.Struct, frozen=True):
    """One router's share of a push; with a shared log, one shard's."""

    router: Annotated[str, Meta(description="its name; with a shared log, that of the shard")]
    status: Status
    streams: Annotated[dict[str, int | None], Meta(description="its offset in each stream; null where it is not known")]
    why: Annotated[str, Meta(description="for people, where the status is not ok; names the router")]


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one publish.

    Attributes:
        push_id: names this push at all six stops.
        status: "ok": kept. "unavailable": surely nothing was kept. "unknown": some of it may have been; ask again with
            a key. "conflict": the key was used for another content. "forbidden": its principal may not. "limited": it
            is one too many, and surely nothing was kept.
        parts: what became of it at each router.
        retry_after_s: when an "unavailable" or "limited" push is worth another try.
        forbidden: a stream that its principal may not push to; then nothing was kept.
        refusal: which limit it is about, if it is limited.
    """

    push_id: str
    status: Status
    parts: Sequence[Part] = ()
    retry_after_s: int = 1
    forbidden: str = ""
    refusal: Refusal | None = None


def is_op(op: int) -> bool:
    """Whether a push may have this operation."""
    return op == PUSH_OP or (FIRST_OP <= op <= LAST_OP and op not in TEST_OPS)


def is_ttl_s(ttl_s: float) -> bool:
    """Whether a push may have this time to live."""
    return 0 <= ttl_s <= TTL_S


def recipients(
    users: Sequence[str | int],
    rooms: Sequence[str | int],
    keys: Sequence[str],
    everybody: bool,
    pause: Pause = no_pause,
) -> tuple[list[str], tuple[str, ...]]:
    """Whom a push is for: its streams, each once, and the sessions that a user's stream is for alone.

    Args:
        users, rooms: names; 7 is "7".
        keys: of sessions. If their user is among the users, all sessions get it.
        everybody: all who are connected.
        pause: is called between steps: there may be very many.

    Raises:
        WrongValue: one of them cannot be, or there are none, or too many.
    """
    if len(users) + len(rooms) + len(keys) > RECIPIENTS:
        raise WrongValue("to", f"{len(users) + len(rooms) + len(keys)} recipients", f"at most {RECIPIENTS}")
    streams: dict[str, None] = {}
    for i, uid in enumerate(paused(map(str, users), pause)):
        if not is_name(uid):
            raise WrongValue(f"to.users[{i}]", f"nobody can be called {shown(uid)}", NAME)
        streams[user_stream(uid)] = None
    only: dict[str, str] = {}
    named: dict[str, int] = {}  # how many sessions of each user
    for i, key in enumerate(paused(keys, pause)):
        stream = user_stream(user_of_key(key))
        if len(stream) == 2:
            raise WrongValue(f"to.keys[{i}]", f"{shown(key)} is no session's key", SESSION_KEY)
        if stream not in streams and key not in only:
            only[key] = stream
            named[stream] = named.get(stream, 0) + 1
            if named[stream] > SESSIONS:
                raise WrongValue(f"to.keys[{i}]", f"more than {SESSIONS:,} sessions of one user", SESSIONS_OF_A_USER)
    streams |= dict.fromkeys(only.values())
    for i, room in enumerate(paused(map(str, rooms), pause)):
        if not is_room(room):
            raise WrongValue(f"to.rooms[{i}]", f"no room can be called {shown(room)}", ROOM)
        streams[room_stream(room)] = None
    if everybody:
        streams[EVERYBODY] = None
    if not streams:
        raise WrongValue("to", "it names nobody", "at least one of users, rooms, keys, or everybody: true")
    return list(streams), tuple(only)


def check_push(push: Push) -> None:
    """Check all of a push but whom it is for.

    Raises:
        WrongValue: something of it cannot be.
    """
    if not is_op(push.op):
        raise WrongValue("op", f"{push.op} is not for pushes", OP)
    if not is_ttl_s(push.ttl_s):
        raise WrongValue("ttl_s", f"{push.ttl_s:g} is no time to live", TTL)
    if push.key and not is_key(push.key):
        raise WrongValue("key", f"{shown(push.key)} cannot be a key", KEY)


def check_streams(push: Push, pause: Pause = no_pause) -> None:
    """Check whom a push is for, where that was not made by `recipients`. pause: see there.

    Raises:
        WrongValue: a stream, or a session's key, cannot be, or there are none, or too many.
    """
    n_recipients = len(push.streams) - (EVERYBODY in push.streams)
    if not push.streams or max(n_recipients, len(push.only)) > RECIPIENTS:
        raise WrongValue("streams", f"there are {len(push.streams)}, and {len(push.only)} keys", f"1 to {RECIPIENTS}")
    for stream in paused(push.streams, pause):
        if not is_stream(stream):
            raise WrongValue("streams", f"{shown(stream)} is no stream", STREAM)
    named = dict.fromkeys(push.streams, 0) if push.only else {}
    for key in paused(push.only, pause):
        stream = user_stream(user_of_key(key))
        if stream not in named:
            raise WrongValue("only", f"{shown(key)} is no session of its users", SESSION_KEY)
        named[stream] += 1
        if named[stream] > SESSIONS:
            raise WrongValue("only", f"more than {SESSIONS:,} sessions of one user", SESSIONS_OF_A_USER)

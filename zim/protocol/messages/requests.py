"""Requests of logics, of comets that ask who a client is, and of publishers over ZeroMQ; and their answers."""

from __future__ import annotations

from typing import Literal

import msgspec

from zim.protocol.messages.base import Int32, Message

# ---------------------------------------------------------------- logic ⇄ router


class Publish(Message, frozen=True):
    """logic → router.

    digest: what the push is, if it has a publisher's key; ttl_ms: 0 for ever; only: see Entry; term: the router's, as
    logic knew it at the first attempt (0: not yet).
    """

    req: int
    push_id: str
    streams: list[str]
    op: Int32
    body: bytes
    attempt: int
    term: int
    digest: bytes = b""
    ttl_ms: int = 0
    only: tuple[str, ...] = ()


class Published(Message, frozen=True):
    """router → logic: ok, unavailable (surely not stored), unknown, conflict (the key was used for another content), or
    refused (another router's stream). offsets: of each stream, if ok."""

    req: int
    router: str
    term: int
    status: Literal["ok", "unavailable", "unknown", "conflict", "refused"]
    offsets: list[int] = msgspec.field(default_factory=list)


class Unread(Message, frozen=True):
    """logic → router: what has a user's stream that nobody has acknowledged?"""

    req: int
    stream: str


class Unreads(Message, frozen=True):
    """router → logic: answer to Unread."""

    req: int
    router: str
    epoch: str
    floor: int
    head: int
    acknowledged: int


class Track(Message, frozen=True):
    """logic → router: what became of this push?"""

    req: int
    push_id: str


class Tracked(Message, frozen=True):
    """router → logic: answer to Track, over this router's sessions; all 0 if it is not known here.

    is_forgotten: the router has kept it, and crashed before it had stored more of it than that.
    accepted_ms, kept_ms, reported_ms: log time at which the router took it, had it in its log, heard of it last.
    """

    req: int
    router: str
    is_known: bool
    is_forgotten: bool
    targeted: int
    delivered: int
    gone: int
    shed: int
    expired: int
    unknown: int
    offline: int
    accepted_ms: int
    kept_ms: int
    reported_ms: int


class Total(Message, frozen=True):
    """logic → router: what became of all pushes?"""

    req: int


class Totalled(Message, frozen=True):
    """router → logic: answer to Total. pending is counted by itself, so that the sum can be checked."""

    req: int
    router: str
    pushes: int
    offline: int
    targeted: int
    delivered: int
    gone: int
    shed: int
    expired: int
    unknown: int
    pending: int


class Locate(Message, frozen=True):
    """logic → router: where is this user?"""

    req: int
    uid: str


class Place(Message, frozen=True):
    """One session: at which comet, its key `uid_seq`, its rooms."""

    comet: str
    key: str
    rooms: tuple[str, ...]


class Located(Message, frozen=True):
    """router → logic: the user's sessions."""

    req: int
    router: str
    places: list[Place]


class Count(Message, frozen=True):
    """logic → router: how many sessions, by room and by comet, of this shard?"""

    req: int


class Counted(Message, frozen=True):
    """router → logic. roomless: sessions that are in no room."""

    req: int
    router: str
    rooms: dict[str, int]
    comets: dict[str, int]
    roomless: int


class Forget(Message, frozen=True):
    """logic → router: forget a comet's sessions at once. One that lives registers anew."""

    req: int
    comet: str


class Forgotten(Message, frozen=True):
    """router → logic: done."""

    req: int
    router: str


# ---------------------------------------------------------------- comet ⇄ logic


class Auth(Message, frozen=True):
    """comet → logic: who is this?"""

    req: int
    token: bytes


class Authed(Message, frozen=True):
    """logic → comet: who it is, and the rooms that it is in. may_join: other ones that it may ask for; null for any."""

    req: int
    uid: str
    rooms: tuple[str, ...]
    may_join: tuple[str, ...] | None


# ---------------------------------------------------------------- publisher ⇄ logic


class Submit(Message, frozen=True):
    """publisher → logic: a push, over ZeroMQ instead of HTTP.

    key: the publisher's idempotency key, "" for none; ttl_ms: 0 for ever; only: session keys, see `NewRecord`.
    """

    req: int
    key: str
    streams: list[str]
    op: Int32
    body: bytes
    ttl_ms: int = 0
    only: tuple[str, ...] = ()


class Submitted(Message, frozen=True):
    """logic → publisher: as `POST /api/push` answers. why: for people, where the status is not "ok"."""

    req: int
    push_id: str
    status: Literal["ok", "unavailable", "unknown", "conflict", "invalid"]
    why: str = ""

"""Requests of logics, of comets that ask who a client is, and of publishers over ZeroMQ; and their answers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from zim.fabric.questions import AnyQuestion
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


class PublishReply(Message, frozen=True):
    """router → logic: ok, unavailable (surely not stored), unknown, conflict (the key was used for another content), or
    refused (another router's stream). offsets: of each stream, if ok."""

    req: int
    router: str
    term: int
    status: Literal["ok", "unavailable", "unknown", "conflict", "refused"]
    offsets: list[int] = msgspec.field(default_factory=list)


class Ask(Message, frozen=True):
    """logic → router: a question."""

    req: int
    question: AnyQuestion


class Answered(Message, frozen=True):
    """router → logic: the answer to Ask, of the type that the question names: see `codec.decode_answer`."""

    req: int
    router: str
    answer: Any


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

"""The messages between nodes, as frozen values; who sends each to whom stands in its first line.

One ZeroMQ message is one frame: a msgpack array of these, each an array `[name, field, …]`.

A router process may own several shards. Whatever goes to one of them, or comes from it, names the shard. Two feeds lie
between a shard and a comet. A feed is named by its comet's incarnation (`inc`) and the term of the shard's owner
(`term`); both stand in whatever belongs to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from zim.fabric.grants import Device
from zim.fabric.limits import CHANGES, MESSAGES, PUSHES, RESULTS
from zim.fabric.questions import AnyQuestion
from zim.protocol.fields import (
    Int32,
    Item,
    Items,
    Keys,
    Limit,
    Moment,
    Number,
    Rooms,
    Run,
    SessionNumber,
    Sessions,
    Streams,
    Ttl,
)
from zim.protocol.logins import AskJoin, Auth, Authed, MayJoin
from zim.protocol.message import Message
from zim.protocol.orders import Orders
from zim.protocol.placing import AskOwned, Moved, Owned
from zim.protocol.publication import ENTRY_BYTES, ITEM_BYTES, Outcome, Publication

CHANGE_BYTES = 64  # what a change costs beside the names in it


# ---------------------------------------------------------------- comet → router: the feed up


class Begin(Message, frozen=True):
    """A change: forget what you knew of me; the `count` changes after this one tell everything anew."""

    n: Number
    count: Number


class Put(Message, frozen=True):
    """A change: a session is here. seq is 0 until the router has given it one. device: its class; most: how many its
    user may have, 0 for what the topology says."""

    n: Number
    conn: Number
    uid: str
    seq: SessionNumber
    rooms: Rooms
    device: Device = ""
    most: Sessions = 0


class Del(Message, frozen=True):
    """A change: a session is gone."""

    n: Number
    conn: Number


class Room(Message, frozen=True):
    """A change: that many local sessions are in the room. `*` is the room of everybody."""

    n: Number
    room: str
    members: Sessions


Change = Begin | Put | Del | Room


def change_bytes(change: Change) -> int:
    """What a change counts for in every limit."""
    names = change.rooms if isinstance(change, Put) else ()
    return CHANGE_BYTES + sum(ITEM_BYTES + len(name) for name in names)


class Changes(Message, frozen=True):
    """comet → router: changes in order; each is answered."""

    shard: str
    comet: str
    inc: Run
    term: Run
    changes: Annotated[list[Change], Meta(max_length=CHANGES)]


class Result(Message, frozen=True):
    """What became of entry n so far, in sessions: targeted is what the comet found, the rest of it is pending."""

    n: Number
    targeted: Sessions
    delivered: Sessions
    gone: Sessions
    shed: Sessions
    expired: Sessions


class Renew(Message, frozen=True):
    """comet → router, every second: I live, and have handled all entries up to `handled`. results: of entries; the same
    again until a Renewed confirms them. obeyed: all orders up to this one, of the registration that began with `begin`.
    """

    shard: str
    comet: str
    inc: Run
    term: Run
    n: Number
    handled: Number
    results: Annotated[list[Result], Meta(max_length=RESULTS)] = msgspec.field(default_factory=list)
    begin: Number = 0
    obeyed: Number = 0


class Fetch(Message, frozen=True):
    """comet → router: the entries from low to high did not come."""

    shard: str
    comet: str
    inc: Run
    term: Run
    low: Number
    high: Number


class Read(Message, frozen=True):
    """comet or logic → router: a stream's records after an offset, up to another, at most `limit`."""

    shard: str
    req: Number
    stream: str
    after: Number
    upto: Number
    limit: Limit


class Acknowledge(Message, frozen=True):
    """comet → router: a client has acknowledged its user's stream up to an offset of an epoch."""

    shard: str
    req: Number
    stream: str
    epoch: str
    offset: Number


# ---------------------------------------------------------------- router → comet


class Answer(Message, frozen=True):
    """To one change: where its stream stands, read after it was applied.

    base: entries start after it; epoch: "" if the stream is another shard's; acknowledged: a user's cursor.
    """

    n: Number
    base: Number
    epoch: str
    head: Number
    seq: SessionNumber
    acknowledged: Number = 0


class Answers(Message, frozen=True):
    """router → comet: answers to changes."""

    shard: str
    term: Run
    inc: Run
    answers: Annotated[list[Answer], Meta(max_length=CHANGES)]


class Renewed(Message, frozen=True):
    """router → comet: answer to Renew.

    made: the last entry of the feed down; begin, applied: changes of the feed up, the one that began the registration
    and the last one applied; now_ms: log time.
    """

    shard: str
    term: Run
    inc: Run
    n: Number
    verdict: Literal["ok", "register", "fenced"]
    made: Number
    known_inc: Run
    begin: Number = 0
    applied: Number = 0
    now_ms: Moment = 0


class Entry(Message, frozen=True):
    """router → job → comet, the feed down: one push for one comet.

    begin: the change that began the registration that it belongs to; expires_ms: log time from which on it is not
    sent, 0 for never; only: session keys; of their users only these get it.
    """

    shard: str
    comet: str
    inc: Run
    begin: Number
    n: Number
    push_id: str
    op: Int32
    body: bytes
    items: Items
    expires_ms: Moment = 0
    only: Keys = ()


def entry_bytes(body: bytes, items: list[Item], only: Sequence[str]) -> int:
    """What an entry counts for in every limit."""
    return ENTRY_BYTES + len(body) + ITEM_BYTES * (len(items) + len(only))


class Fetched(Message, frozen=True):
    """router → comet: answer to Fetch, a page at a time; empty if what was asked for is not kept."""

    shard: str
    term: Run
    low: Number
    entries: list[Entry]


class Record(Message, frozen=True):
    """One message of a stream. time_ms: the wall clock, for people; the rest: see Entry."""

    offset: Number
    push_id: str
    op: Int32
    body: bytes
    time_ms: Moment = 0
    only: Keys = ()
    expires_ms: Moment = 0


class Records(Message, frozen=True):
    """router → comet or logic: answer to Read.

    epoch: "" if the stream is another shard's; floor: nothing at or below it is kept any more; last: what is above
    that and above what was asked for, up to this offset, is in records or has expired.
    """

    req: Number
    shard: str
    stream: str
    epoch: str
    floor: Number
    head: Number
    records: Annotated[list[Record], Meta(max_length=MESSAGES)]
    last: Number


class Acknowledged(Message, frozen=True):
    """router → comet: answer to Acknowledge. offset: where the cursor is, durably."""

    req: Number
    shard: str
    offset: Number


# ---------------------------------------------------------------- router → job


class Target(Message, frozen=True):
    """The entry that a push makes in one comet's feed."""

    comet: str
    inc: Run
    begin: Number
    n: Number
    items: Items


class Push(Message, frozen=True):
    """router → job: the body once, and the entries it makes. expires_ms, only: see Entry."""

    shard: str
    push_id: str
    op: Int32
    body: bytes
    targets: list[Target]
    expires_ms: Moment = 0
    only: Keys = ()


# ---------------------------------------------------------------- logic ⇄ router


class Publish(Message, frozen=True):
    """logic → router: pushes of one publisher, to be taken in their order. term: the shard's, as logic knew it at the
    first attempt (0: not yet)."""

    shard: str
    req: Number
    attempt: Number
    term: Run
    pushes: Annotated[list[Publication], Meta(max_length=PUSHES)]


class PublishReply(Message, frozen=True):
    """router → logic: what became of some of the pushes of a Publish. Each is told once."""

    req: Number
    shard: str
    term: Run
    outcomes: Annotated[list[Outcome], Meta(max_length=PUSHES)]


class AskTime(Message, frozen=True):
    """logic → router: what is your log time?"""

    shard: str
    req: Number


class LogTime(Message, frozen=True):
    """router → logic: answer to AskTime."""

    req: Number
    shard: str
    term: Run
    now_ms: Moment


class Ask(Message, frozen=True):
    """logic → router: a question."""

    shard: str
    req: Number
    question: AnyQuestion


class Answered(Message, frozen=True):
    """router → logic: the answer to Ask, of the type that the question names: see `codec.decode_answer`. None if the
    stream that it is about is another shard's."""

    req: Number
    shard: str
    answer: Any


# ---------------------------------------------------------------- publisher ⇄ logic


class Submit(Message, frozen=True):
    """publisher → logic: a push, over ZeroMQ instead of HTTP.

    key: the publisher's idempotency key, "" for none; ttl_ms: 0 for ever; only: session keys, none for all sessions.
    """

    req: Number
    key: str
    streams: Streams
    op: Int32
    body: bytes
    ttl_ms: Ttl = 0
    only: Keys = ()


class Submitted(Message, frozen=True):
    """logic → publisher: as `POST /api/push` answers. why: for people, where the status is not "ok".

    retry_ms, limit: it is unavailable because of that limit; when it may be tried again.
    """

    req: Number
    push_id: str
    status: Literal["ok", "unavailable", "unknown", "conflict", "forbidden", "unauthorized", "invalid"]
    why: str = ""
    retry_ms: Number = 0
    limit: str = ""


# ---------------------------------------------------------------- what each link carries

ToShard = Changes | Renew | Fetch | Read | Acknowledge | Publish | Ask | AskTime
ToRouter = ToShard | AskOwned
ToComet = Answers | Renewed | Fetched | Records | Acknowledged | Orders | Owned | Moved
ToJob = Push
ToAsker = PublishReply | Records | Answered | LogTime | Owned | Moved
ToLogic = Auth | AskJoin
FromPublisher = Submit
FromLogic = Authed | MayJoin
ToPublisher = Submitted

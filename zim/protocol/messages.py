"""The messages between nodes, as frozen values; who sends each to whom stands in its first line.

One ZeroMQ message is one frame: a msgpack array of these, each an array `[name, field, …]`.

Two feeds lie between a router and a comet. A feed is named by its comet's incarnation (`inc`) and its router's term
(`term`); both stand in whatever belongs to it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from zim.fabric.questions import AnyQuestion

ENTRY_BYTES, ITEM_BYTES = 200, 40  # what an entry and each of its items cost beside the body, in memory and on the wire
CHANGE_BYTES = 64  # what a change costs beside the names in it


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=str.lower):
    """What all messages are."""


Item = tuple[str, int]  # stream, offset
Int32 = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]

# ---------------------------------------------------------------- comet → router: the feed up


class Begin(Message, frozen=True):
    """A change: forget what you knew of me; the `count` changes after this one tell everything anew."""

    n: int
    count: int


class Put(Message, frozen=True):
    """A change: a session is here. seq is 0 until the router has given it one."""

    n: int
    conn: int
    uid: str
    seq: int
    rooms: tuple[str, ...]


class Del(Message, frozen=True):
    """A change: a session is gone."""

    n: int
    conn: int


class Room(Message, frozen=True):
    """A change: that many local sessions are in the room. `*` is the room of everybody."""

    n: int
    room: str
    members: int


Change = Begin | Put | Del | Room


def change_bytes(change: Change) -> int:
    """What a change counts for in every limit."""
    names = change.rooms if isinstance(change, Put) else ()
    return CHANGE_BYTES + sum(ITEM_BYTES + len(name) for name in names)


class Changes(Message, frozen=True):
    """comet → router: changes in order; each is answered."""

    comet: str
    inc: int
    term: int
    changes: list[Change]


class Result(Message, frozen=True):
    """What became of entry n so far, in sessions: targeted is what the comet found, the rest of it is pending."""

    n: int
    targeted: int
    delivered: int
    gone: int
    shed: int
    expired: int


class Renew(Message, frozen=True):
    """comet → router, every second: I live, and have handled all entries up to `handled`.

    results: of entries; the same again until a Renewed confirms them.
    """

    comet: str
    inc: int
    term: int
    n: int
    handled: int
    results: list[Result] = msgspec.field(default_factory=list)


class Fetch(Message, frozen=True):
    """comet → router: the entries from low to high did not come."""

    comet: str
    inc: int
    term: int
    low: int
    high: int


class Read(Message, frozen=True):
    """comet or logic → router: a stream's records after an offset, up to another, at most `limit`."""

    req: int
    stream: str
    after: int
    upto: int
    limit: int


class Acknowledge(Message, frozen=True):
    """comet → router: a client has acknowledged its user's stream up to an offset."""

    req: int
    stream: str
    offset: int


# ---------------------------------------------------------------- router → comet


class Answer(Message, frozen=True):
    """To one change: where its stream stands, read after it was applied.

    base: entries start after it; acknowledged: the cursor of a user's stream.
    """

    n: int
    base: int
    epoch: str
    head: int
    seq: int
    acknowledged: int = 0


class Answers(Message, frozen=True):
    """router → comet: answers to changes."""

    router: str
    term: int
    inc: int
    answers: list[Answer]


class Renewed(Message, frozen=True):
    """router → comet: answer to Renew. made: the last entry of the feed down; now_ms: log time."""

    router: str
    term: int
    inc: int
    n: int
    verdict: Literal["ok", "register", "fenced"]
    made: int
    known_inc: int
    now_ms: int = 0


class Entry(Message, frozen=True):
    """router → job → comet, the feed down: one push for one comet.

    expires_ms: log time from which on it is not sent; 0: never. only: session keys; of their users only these get it.
    """

    router: str
    term: int
    comet: str
    inc: int
    n: int
    push_id: str
    op: Int32
    body: bytes
    items: list[Item]
    expires_ms: int = 0
    only: tuple[str, ...] = ()


def entry_bytes(body: bytes, items: list[Item]) -> int:
    """What an entry counts for in every limit."""
    return ENTRY_BYTES + len(body) + ITEM_BYTES * len(items)


class Fetched(Message, frozen=True):
    """router → comet: answer to Fetch, a page at a time; empty if what was asked for is not kept."""

    router: str
    term: int
    low: int
    entries: list[Entry]


class Record(Message, frozen=True):
    """One message of a stream. time_ms: the wall clock, for people; the rest: see Entry."""

    offset: int
    push_id: str
    op: Int32
    body: bytes
    time_ms: int = 0
    only: tuple[str, ...] = ()
    expires_ms: int = 0


class Records(Message, frozen=True):
    """router → comet or logic: answer to Read.

    floor: nothing at or below it is kept any more; last: what is above that and above what was asked for, up to this
    offset, is in records or has expired.
    """

    req: int
    router: str
    stream: str
    epoch: str
    floor: int
    head: int
    records: list[Record]
    last: int


class Acknowledged(Message, frozen=True):
    """router → comet: answer to Acknowledge. offset: where the cursor is, durably."""

    req: int
    router: str
    offset: int


# ---------------------------------------------------------------- router → job


class Target(Message, frozen=True):
    """The entry that a push makes in one comet's feed."""

    comet: str
    inc: int
    n: int
    items: list[Item]


class Push(Message, frozen=True):
    """router → job: the body once, and the entries it makes. expires_ms, only: see Entry."""

    router: str
    term: int
    push_id: str
    op: Int32
    body: bytes
    targets: list[Target]
    expires_ms: int = 0
    only: tuple[str, ...] = ()


# ---------------------------------------------------------------- logic ⇄ router


class Publication(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One router's share of a push.

    digest: what the whole push is, if it has a key; the next four: see `KeyUse`. ttl_ms: 0 for ever; only: see Entry.
    """

    push_id: str
    streams: list[str]
    op: Int32
    body: bytes
    digest: bytes = b""
    home_ms: int = 0
    age_ms: int = 0
    is_fresh: bool = False
    is_live_only: bool = False
    ttl_ms: int = 0
    only: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """What it counts for in every limit, in bytes."""
        return ENTRY_BYTES + len(self.body) + ITEM_BYTES * (len(self.streams) + len(self.only))


class Publish(Message, frozen=True):
    """logic → router: pushes of one publisher, to be taken in their order.

    term: the router's, as logic knew it at the first attempt (0: not yet).
    """

    req: int
    attempt: int
    term: int
    pushes: list[Publication]


class Outcome(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of one of them: ok, unavailable (surely not stored), unknown, conflict (the key has another push), or
    refused (another router's stream).

    at: which one. offsets: of each stream, if ok; 0 where it is not known. home_ms and the next: at its key's home.
    """

    at: int
    status: Literal["ok", "unavailable", "unknown", "conflict", "refused"]
    offsets: tuple[int, ...] = ()
    home_ms: int = 0
    age_ms: int = 0
    is_fresh: bool = False


class PublishReply(Message, frozen=True):
    """router → logic: what became of some of the pushes of a Publish. Each is told once."""

    req: int
    router: str
    term: int
    outcomes: list[Outcome]


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


# ---------------------------------------------------------------- what each link carries

ToRouter = Changes | Renew | Fetch | Read | Acknowledge | Publish | Ask
ToComet = Answers | Renewed | Fetched | Records | Acknowledged
ToJob = Push
ToAsker = PublishReply | Records | Answered
ToLogic = Auth | Submit
FromLogic = Authed
ToPublisher = Submitted

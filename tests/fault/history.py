"""What happened in a run: every push with its answer, and every client with all that it was told. Values only.

Numbers are the pushes' own (`{"n": 17}` is the body of push 17). Times are seconds since the run began, on one
monotonic clock, so that "asked after" and "answered before" can be decided. `save()` and `load()` keep a run for later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Verdict = Literal["accepted", "refused", "unknown"]


class Push(msgspec.Struct):
    """One numbered push.

    Attributes:
        streams: where it goes, in canonical names: `u:7`, `r:1`, `*`.
        key: the publisher's idempotency key; "" for none.
        asked_at, answered_at: the first attempt's start, the last one's end.
        verdict: accepted: success was answered. refused: every attempt was answered 503, so it is surely not there.
            unknown: anything else.
        attempts: how often it was asked; more than once only with a key.
        push_id: what the answer called it.
        offsets: per stream, where the answer tells them.
        ttl_s: how long it is worth being handed out; 0 for ever.
        train: the pushes of one train come in each stream in the order of their numbers, if the first attempt stored
            them: one batch, or one publisher's connection. "" for those that go alone.
        reuses: the number of an accepted push whose key this one has, with another content; 0 for none.
    """

    number: int
    streams: tuple[str, ...]
    asked_at: float
    key: str = ""
    answered_at: float = 0.0
    verdict: Verdict = "unknown"
    attempts: int = 0
    push_id: str = ""
    offsets: dict[str, int] = {}
    ttl_s: float = 0.0
    train: str = ""
    reuses: int = 0


class Connected(msgspec.Struct, tag=True):
    """A connection was authenticated: its session starts. streams: what a goim client's token gives it."""

    at: float
    comet: str
    streams: tuple[str, ...] = ()


class Joined(msgspec.Struct, tag=True):
    """A reply said from where on a stream comes: everything after offset. resume: what the client had asked for."""

    at: float
    stream: str
    epoch: str
    offset: int
    recovered: bool
    resume: tuple[str, int] | None = None


class Received(msgspec.Struct, tag=True):
    """A push came; a goim client is not told stream and offset. number: -1 if the body is none of ours."""

    at: float
    number: int
    stream: str = ""
    offset: int = 0


class Told(msgspec.Struct, tag=True):
    """A gap packet: the messages first…last of a stream will not come."""

    at: float
    stream: str
    epoch: str
    first: int
    last: int
    reason: str


class Left(msgspec.Struct, tag=True):
    """The server confirmed that no more of this stream comes."""

    at: float
    stream: str


class Closed(msgspec.Struct, tag=True):
    """The connection ended. why: what the server said, or what the client did."""

    at: float
    why: str


class Broken(msgspec.Struct, tag=True):
    """The server said something that its protocol does not allow."""

    at: float
    what: str


class Froze(msgspec.Struct, tag=True):
    """It stopped reading until then: what it reads afterwards may have been sent long ago."""

    at: float
    until: float


class Asked(msgspec.Struct, tag=True):
    """It acknowledges its own stream up to here."""

    at: float
    stream: str
    offset: int


class Acknowledged(msgspec.Struct, tag=True):
    """The server says where the cursor is."""

    at: float
    stream: str
    offset: int


Event = Connected | Joined | Received | Told | Left | Closed | Broken | Froze | Asked | Acknowledged


class Client(msgspec.Struct):
    """One client and its life.

    Attributes:
        dialect: zim: it knows offsets, resumes, and is owed everything. goim: owed what comes while it is connected.
    """

    name: str
    dialect: Literal["zim", "goim"]
    events: list[Event] = []


class Entry(msgspec.Struct):
    """One message of a stream, as the log has it at the end. number: -1 if the body is none of ours."""

    offset: int
    number: int


class Log(msgspec.Struct):
    """A stream as it was read back at the end. first: the lowest offset that is kept."""

    stream: str
    epoch: str
    first: int
    head: int
    entries: list[Entry] = []


class History(msgspec.Struct):
    """A whole run.

    Attributes:
        is_settled: at the end all was healed, and every client that could get the last push of each of its streams did,
            or had the time to.
        logs: empty where the fabric cannot be asked.
        router_kills: when a router was killed, which may forget the receipts of the last second.
        router_ends: when a router ended in any way, or was seen to have ended: live-only streams begin anew.
        waits: from when until when receipts may have waited: the disk was full or stood still, or a router did.
        kept: how many messages are kept of a stream, where that is few; 0 for those that are live only.
    """

    seed: int = 0
    pushes: list[Push] = []
    clients: list[Client] = []
    logs: list[Log] = []
    router_kills: list[float] = []
    router_ends: list[float] = []
    waits: list[tuple[float, float]] = []
    kept: dict[str, int] = {}
    is_settled: bool = True


def save(history: History, path: Path) -> None:
    """Writes it as JSON."""
    path.write_bytes(msgspec.json.encode(history))


def load(path: Path) -> History:
    """Reads what `save()` wrote.

    Raises:
        OSError, msgspec.DecodeError: it cannot be read, or is something else.
    """
    return msgspec.json.decode(path.read_bytes(), type=History)

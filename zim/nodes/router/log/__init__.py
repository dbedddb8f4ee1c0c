"""The router's log: what every engine that keeps streams must do. The interface is all that the router knows of it.

Every call blocks only the calling greenlet. One contract suite, tests/unit/nodes/router/log/contract.py, holds all
engines to it. Times are log time: whole milliseconds that never go back, see `zim.nodes.router.log.clock`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from zim.errors import Unavailable, Unknown, ZimError
from zim.fabric.bans import Ban, Banned
from zim.fabric.retention import Retention
from zim.nodes.router.log.keys import KeyUse, Seen, StoredKey, as_asked, seen
from zim.protocol.messages import Record
from zim.protocol.publication import part_id

RECORD_BYTES = 300  # what a record counts for in every limit beside its body


class NewPush(NamedTuple):
    """A push to append: a record in each of its streams, which gets the next offset there.

    Attributes:
        push_id: names it.
        streams: canonical names, none twice; none at all for a key alone.
        op, body: what clients get.
        time_ms: log time.
        expires_ms: log time; 0 for never.
        only: by stream, keys of the sessions that it is for; all of them where there is nothing.
        key: of its publisher.
        wall_ms: the wall clock, for people; nothing rests on it.
    """

    push_id: str
    streams: Sequence[str]
    op: int
    body: bytes
    time_ms: int
    expires_ms: int = 0
    only: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    key: KeyUse | None = None
    wall_ms: int = 0

    @property
    def key_id(self) -> str:
        """What its key is stored under."""
        return part_id(self.push_id, self.key.part if self.key is not None else 0)


class Appended(NamedTuple):
    """What became of one push.

    Attributes:
        outcome: "stored" now; "duplicate": it was, under this key; "conflict": another push was; "unknown": under this
            key something may have been, and nobody can tell; "no room" for the key. Nothing but "stored" stores.
        offsets: of its streams, in their order; 0 where it is not known. None of a conflict.
        home_ms: see KeyUse; of a push with a key.
        is_sure: False if what is in memory of it may be another history's, for its owner may not be that any more.
    """

    outcome: Literal["stored", "no room"] | Seen
    offsets: tuple[int, ...] = ()
    home_ms: int = 0
    is_sure: bool = True


def repeated(push: NewPush, found: StoredKey | None, window_ms: int, is_lasting: bool = True) -> Appended | None:
    """What a push with a key is; nothing if it is new. Arguments as of `zim.nodes.router.log.keys.seen`."""
    if push.key is None:
        return None
    outcome = seen(push.key, found, push.time_ms, window_ms, is_lasting)
    if outcome == "duplicate" and found is not None:
        return Appended(outcome, as_asked(push.streams, found.offsets), found.home_ms)
    return None if outcome is None else Appended(outcome)


class Head(NamedTuple):
    """Where a stream stands.

    Attributes:
        epoch: which history its offsets belong to.
        floor: nothing at or below it is kept any more.
        head: the last offset; 0 before its first message.
    """

    epoch: str
    floor: int
    head: int


@dataclass(frozen=True)
class StreamPage:
    """A piece of a stream, as of one moment.

    Attributes:
        epoch, floor, head: see Head.
        records: in order; what has expired is left out.
        last: the piece ends here: what is above `after` and the floor, up to this offset, is in records or has expired.
    """

    epoch: str
    floor: int
    head: int
    records: list[Record]
    last: int


@dataclass(frozen=True)
class Lease:
    """The right to write a shard.

    Attributes:
        shard: the owner's name.
        term: of this acquisition; above all before it.
    """

    shard: str
    term: int


class LogError(ZimError):
    """The log refuses what it was asked, and nothing was written. See also Unavailable and Unknown of zim.errors."""


def unavailable(reason: str) -> Unavailable:
    """The error of a log that has surely written nothing. reason: for people."""
    return Unavailable("the log", f"it cannot be written: {reason}")


def unknown(reason: str) -> Unknown:
    """The error of a log that cannot tell what it has written: `settle` tells, or the next start."""
    return Unknown("the log", f"it cannot be told what was written: {reason}")


class Fenced(LogError):
    """Another owner has the shard now."""


class Damaged(LogError):
    """What is stored is not what was written. Nothing of it was handed out, and this call has written nothing.

    Attributes:
        where: the file, or the stream and offset.
        offset: of the record that is damaged; 0 if it is more than one.
    """

    def __init__(self, where: str, reason: str, offset: int = 0) -> None:
        super().__init__(f"the log is damaged: {where}: {reason}")
        self.where, self.offset = where, offset


class Backlog(NamedTuple):
    """What is past its time, and still there: records that no rule keeps, keys past their window."""

    records: int = 0
    keys: int = 0


class Trimmed(NamedTuple):
    """What one call of trim let go.

    Attributes:
        has_more: its budget ended it, so there may be more.
    """

    records: int
    keys: int
    has_more: bool


class Log(Protocol):
    """Streams: ordered, numbered from 1 without gaps, one writer each.

    Any call may raise Damaged; any, where the disk does not do its part, Unavailable; any that takes a lease, Fenced.
    Where a call other than append and settle raises Unknown, it may be asked again.
    """

    @property
    def last_time_ms(self) -> int:
        """The newest log time that is stored."""

    @property
    def is_full(self) -> bool:
        """The disk had no room, and pushes are refused until there is some."""

    @property
    def trouble(self) -> str:
        """Why pushes are refused now, in words; "" if they are not."""
        return "the disk is full" if self.is_full else ""

    @property
    def backlog(self) -> Backlog:
        """What trimming has found, or been told of by appends, and not let go yet."""

    def acquire(self, owner: str) -> Lease:
        """Makes `owner` the only writer of its shard. The lease before this one is fenced."""

    def append(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended]:
        """Appends a batch: atomic, durable on return, in its order. One call at a time.

        Returns:
            One for each push.

        Raises:
            Fenced: the lease is another's.
            Unavailable: surely nothing was written, and no offset was used.
            Unknown: it cannot be told; nothing else may be asked before `settle`.
        """

    def settle(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended] | None:
        """What became of the batch whose append raised Unknown; nothing if it is not in the log."""

    def find(self, pushes: Sequence[NewPush]) -> list[Appended | None]:
        """What each of these pushes with keys would be if it came now; nothing if it is new."""

    def read(self, stream: str, after: int, upto: int, max_records: int, max_bytes: int, now_ms: int) -> StreamPage:
        """The records in (after, upto], as many as the limits hold, at least one if there is one.

        Args:
            max_bytes: each record counts for its body and RECORD_BYTES.
            now_ms: log time: what expires at or before it is left out.

        Raises:
            Damaged: the first record is not what was written; a later one ends the page before it.
        """

    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        """Where streams stand, also those that do not exist."""

    def newest(self, upto_ms: int, for_ms: int, most: int) -> list[tuple[str, int]]:
        """Ids and log times of the pushes that are kept of a `Window`; newest first, at most so many.

        Args:
            upto_ms, for_ms: see there.
        """

    def reserve_seqs(self, lease: Lease, count: int) -> int:
        """The first of `count` session numbers that no one was ever given. Durable."""

    def acknowledge(self, lease: Lease, offsets: Mapping[str, int]) -> Mapping[str, int]:
        """Moves streams' cursors forward to offsets, at most to their heads, never back. Durable.

        Returns:
            Where the cursors are.
        """

    def acknowledged(self, streams: Sequence[str]) -> Mapping[str, int]:
        """The streams' cursors; 0 where nothing was ever acknowledged."""

    def ban(self, lease: Lease, bans: Sequence[Ban], lifted: Sequence[Banned] = ()) -> None:
        """Keeps bans, each in the place of one about the same, and lets go of others. Durable. Also on a full disk."""

    def bans(self) -> list[Ban]:
        """All that are kept, in the order in which they came."""

    def trim(self, lease: Lease, retention: Retention, now_ms: int, before_ms: int, budget: int) -> Trimmed:
        """Lets go of records that the retention does not keep, a little at a time; also of keys past their window.

        Whatever appends do meanwhile, it lets go of more than they write.

        Args:
            retention: how many and how long, by stream.
            now_ms: log time.
            before_ms: only records older than this may go.
            budget: of records, of keys, and of streams looked at, in one call.
        """

    def close(self) -> None:
        """Gives back what it holds."""

"""What a log in memory keeps. Pure: no I/O, no switch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from zim.fabric.bans import Ban, Banned
from zim.nodes.router.log import Lease
from zim.nodes.router.log.keys import StoredKey
from zim.protocol.messages import Record

Failure = Literal["unavailable", "unknown, stored", "unknown, lost"]


class Kept(NamedTuple):
    """A record; in log time when it was appended, and when it ceases to be one: 0 for never."""

    record: Record
    time_ms: int
    expires_ms: int


@dataclass(slots=True)
class Book:
    """One stream: what is kept of it ends at its head."""

    epoch: str
    head: int = 0
    kept: deque[Kept] = field(default_factory=deque)

    @property
    def floor(self) -> int:
        """Nothing at or below it is kept."""
        return self.head - len(self.kept)


@dataclass
class MemoryStore:
    """The content of a log.

    Attributes:
        epoch: of all streams; "" gives each one its own, of the term in which it was made.
        takes: log times at which the last owners took it, the newest first.
        failures: what happens to the next appends, one each, oldest first; then they work.
    """

    epoch: str = ""
    owner: str = ""
    term: int = 0
    takes: deque[int] = field(default_factory=lambda: deque(maxlen=100))
    time_ms: int = 0
    next_seq: int = 1
    books: dict[str, Book] = field(default_factory=dict)
    keys: dict[str, StoredKey] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)
    bans: dict[Banned, Ban] = field(default_factory=dict)
    failures: deque[Failure] = field(default_factory=deque)

    def take(self, owner: str, wall_ms: int) -> Lease:
        """It has a new owner."""
        self.owner, self.term = owner, max(self.term + 1, wall_ms)
        self.takes.appendleft(self.time_ms)
        return Lease(owner, self.term)

"""The router's log: what every engine that keeps streams must do.

This interface is all that the router knows of it. MemoryLog keeps the last seconds and nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from zim.protocol.messages import Record


class NewRecord(NamedTuple):
    """A message to append. The log gives it the next offset of its stream."""

    stream: str
    push_id: str
    op: int
    body: bytes


@dataclass(frozen=True)
class Page:
    """A piece of a stream, as of one moment.

    Attributes:
        epoch: which history these offsets belong to.
        floor: nothing at or below it is kept any more.
        head: the last offset.
        records: in order; the first one is the next after what was asked for, unless that is below the floor.
    """

    epoch: str
    floor: int
    head: int
    records: list[Record]


class Log(Protocol):
    """Streams: ordered, numbered from 1 without gaps, one writer each."""

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        """Appends all of them; returns the offset of each. Blocks only the calling greenlet."""

    def read(self, stream: str, after: int, upto: int, max_bytes: int) -> Page:
        """The records in (after, upto], as many as max_bytes hold, at least one if there is one."""

    def head(self, stream: str) -> tuple[str, int]:
        """The stream's epoch and last offset; 0 before its first message."""

    def reserve_seqs(self, count: int) -> int:
        """The first of `count` session numbers that no one was ever given."""

    def trim(self, now: float, is_served: Callable[[str], bool]) -> None:
        """Lets go of what is old. A stream that somebody is subscribed to keeps its epoch and head.

        Args:
            now: monotonic seconds.
            is_served: whether any comet serves the stream.
        """

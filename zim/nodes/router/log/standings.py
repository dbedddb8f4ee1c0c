"""What the hub knows of streams without asking the engine: the ones used last. Only what is committed gets in."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from zim.fabric.retention import Retention

MOST = 100_000  # streams; some 30 MB


class StreamStanding(msgspec.Struct, frozen=True, gc=False):
    """Where a stream stands. id: its row; 0 if it has none yet. epoch: its own; "" for that of the log."""

    id: int
    floor: int
    head: int
    epoch: str = ""


Found = dict[str, StreamStanding]


class Overfull:
    """Streams that trimming is to look at, in the order in which they were found.

    Each stands there once, from a moment on: what is younger then may not go yet, so looking earlier would be in vain.

    Attributes:
        records: how many of theirs are too many.
    """

    def __init__(self) -> None:
        self.records = 0
        self._found: dict[str, tuple[int, int]] = {}  # records, and log time

    def __contains__(self, stream: str) -> bool:
        return stream in self._found

    def put(self, stream: str, records: int, time_ms: int) -> None:
        """This stream has so many too many. Of one that is there already the time stays."""
        before = self._found.get(stream, (0, time_ms))
        self._found[stream] = records, before[1]
        self.records += records - before[0]

    def drop(self, stream: str) -> None:
        """This stream is seen to otherwise."""
        self.records -= self._found.pop(stream, (0, 0))[0]

    def has_due(self, before_ms: int) -> bool:
        """Whether the first one has records that may go."""
        return any(time_ms < before_ms for _, time_ms in islice(self._found.values(), 1))

    def take(self, most: int, before_ms: int) -> dict[str, int]:
        """Streams with records that may go, until they have about so many too many; and how many each has."""
        taken: dict[str, int] = {}
        for stream, (records, time_ms) in self._found.items():
            if time_ms >= before_ms or most <= 0:
                break
            taken[stream] = records
            most -= records
        for stream in taken:
            self.drop(stream)
        return taken


class Standings:
    """A bounded map of streams.

    Attributes:
        overfull: streams that hold more than their rule says, and some slack: trimming starts with them.
    """

    def __init__(self, most: int = MOST) -> None:
        self.overfull = Overfull()
        self._most = most
        self._known: OrderedDict[str, StreamStanding] = OrderedDict()
        self._retention = Retention()
        self._least = sys.maxsize  # that a stream holds if any rule may find it too much
        self._loads = 0

    def use(self, retention: Retention) -> None:
        """From now on `overfull` goes by these rules."""
        self._retention = retention
        self._least = min(rule.count + slack(rule.count) for rule in retention.rules)

    def get(self, stream: str) -> StreamStanding | None:
        """Where it stands, if that is known."""
        standing = self._known.get(stream)
        if standing is not None:
            self._known.move_to_end(stream)
        return standing

    def moved(self, standings: Mapping[str, StreamStanding], time_ms: int) -> None:
        """A commit moved these. time_ms: the newest log time of it."""
        self._known.update(standings)
        for stream, standing in standings.items():
            held = standing.head - standing.floor
            if held > self._least:
                count = self._retention.rule(stream).count
                if held > count + slack(count):
                    self.overfull.put(stream, held - count, time_ms)
        self._shrink()

    def known(self, streams: Sequence[str], read: Callable[[list[str]], Found]) -> Found:
        """Where streams stand. Switches: if `read` is called, with those that are not in memory."""
        found, missing = self.split(streams)
        if not missing:
            return found
        self._loads += 1  # what a commit moves meanwhile stays known, so that it wins
        there: Found = {}
        try:
            there = read(missing)
        finally:
            self._loads -= 1
            for stream, standing in there.items():
                self._known.setdefault(stream, standing)
        found = {stream: self._known[stream] for stream in streams}
        self._shrink()
        return found

    def split(self, streams: Iterable[str]) -> tuple[Found, list[str]]:
        """Where streams stand of which that is in memory, and the others, each once."""
        found: Found = {}
        missing: dict[str, None] = {}
        for stream in streams:
            if stream in found:
                continue
            standing = self.get(stream)
            if standing is None:
                missing[stream] = None
            else:
                found[stream] = standing
        return found, list(missing)

    def _shrink(self) -> None:
        if not self._loads:
            while len(self._known) > self._most:
                self._known.popitem(last=False)


def slack(count: int) -> int:
    """How far a stream may grow over its count, so that trimming takes many records of it at once."""
    return max(16, count // 8)

"""What the hub knows of streams without asking the disk: the ones used last. Only what is committed gets in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from zim.fabric.retention import Retention
from zim.nodes.router.log.sqlite.planning import Standing

MOST = 100_000  # streams; some 30 MB


class Standings:
    """A bounded map of streams.

    Attributes:
        overfull: streams that hold more than their rule says, and some slack: trimming starts with them.
    """

    def __init__(self, most: int = MOST) -> None:
        self.overfull: dict[str, None] = {}
        self._most = most
        self._known: OrderedDict[str, Standing] = OrderedDict()
        self._retention: Retention | None = None
        self._loads = 0

    def use(self, retention: Retention) -> None:
        """From now on `overfull` goes by these rules."""
        self._retention = retention

    def get(self, stream: str) -> Standing | None:
        """Where it stands, if that is known."""
        standing = self._known.get(stream)
        if standing is not None:
            self._known.move_to_end(stream)
        return standing

    def moved(self, standings: Mapping[str, Standing]) -> None:
        """A commit moved these."""
        self._known.update(standings)
        if self._retention is not None:
            for stream, standing in standings.items():
                count = self._retention.rule(stream).count
                if standing.head - standing.floor > count + slack(count):
                    self.overfull[stream] = None
        self._shrink()

    def loading(self) -> None:
        """Somebody reads standings from the disk. Until `loaded`, what a commit moves stays known, so that it wins."""
        self._loads += 1

    def loaded(self, standings: Mapping[str, Standing]) -> None:
        """They are read, as of some moment since `loading`."""
        self._loads -= 1
        for stream, standing in standings.items():
            self._known.setdefault(stream, standing)

    def view(self, streams: Iterable[str]) -> dict[str, Standing]:
        """Where streams stand that were loaded just now."""
        found = {stream: self._known[stream] for stream in streams}
        self._shrink()
        return found

    def _shrink(self) -> None:
        if not self._loads:
            while len(self._known) > self._most:
                self._known.popitem(last=False)


def slack(count: int) -> int:
    """How far a stream may grow over its count, so that trimming takes many records of it at once."""
    return max(16, count // 8)

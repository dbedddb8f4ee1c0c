"""The feeds of all shards, and where the shards are. Pure: no socket, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from zim.fabric.sharding import Shards
from zim.nodes.comet.feed import MADE_AT_ONCE, Link
from zim.nodes.effects import Effect
from zim.nodes.placement import Placement
from zim.protocol.placing import Moved, Owned


class Feeds(dict[str, Link]):
    """The links of a comet, by shard.

    Attributes:
        placement: of the shards.
    """

    def __init__(self, comet: str, inc: int, placement: Placement, out: list[Effect], most_changes: int) -> None:
        """
        Args:
            out, most_changes: see Link.
        """
        super().__init__({shard: Link(shard, comet, inc, out, most_changes) for shard in placement.shards})
        self.placement = placement
        self._out = out
        self._shards = Shards(placement.shards)
        self._place(placement.shards)

    def of(self, stream: str) -> Link:
        """That of the shard where a stream is."""
        return self[self._shards.of(stream)]

    def on_link(self, router: str, is_connected: bool) -> None:
        """A router is there, or is not any more."""
        self.placement.on_link(router, is_connected)
        self._place(self.placement.at(router))

    def on_placing(self, m: Owned | Moved) -> None:
        """A router says which shards it owns, or that it does not own one."""
        placement = self.placement
        self._place(placement.on_owned(m) if isinstance(m, Owned) else placement.on_moved(m))

    def _place(self, shards: Iterable[str]) -> None:
        placement = self.placement
        for shard in shards:
            self[shard].moved(placement.router_of(shard), placement.terms[shard], placement.is_there(shard))

    def tick(self, now: float, renew_bytes: int) -> None:
        """Repeats, fetches and renews what is due, and asks where shards are. renew_bytes: see Link.tick."""
        self._out += self.placement.due(now)
        for link in self.values():
            link.tick(now, renew_bytes)

    def flush(self) -> None:
        """Sends what is due; of very much only some in one step, and of each shard's."""
        busy = [link for link in self.values() if link.is_behind]
        for link in busy:
            link.flush(max(1, MADE_AT_ONCE // len(busy)))

    def is_registered(self) -> bool:
        """Every shard knows all that is here."""
        return all(link.term and not link.is_registering for link in self.values())

"""Which router has which shard, as far as one comet or logic knows. Pure: no socket, no clock.

With the embedded log a router owns the shard of its own name, for ever. With a shared log any router may own any shard.
Each router says which it owns when it is asked, and when that changes. The highest term is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zim.nodes.effects import MESSAGE_BYTES, Send
from zim.protocol.message import Message
from zim.protocol.placing import AskOwned, Moved, Owned

ASK_S = 1.0  # between two times that every router is asked
LOST_S = 5.0  # without an owner: each owner that was is past its deadline, so that any term is right


def numbers_of(lost: Iterable[Message]) -> list[int]:
    """The requests among messages to a router that never left. Who owns what is asked again by itself."""
    return [m.req for m in lost if not isinstance(m, AskOwned)]  # type: ignore[attr-defined]


class Placement:
    """Of all shards.

    Attributes:
        shards: their names.
        terms: by shard, the highest term that was heard of; 0 before that.
    """

    def __init__(self, node: str, routers: Sequence[str], shards: Sequence[str]) -> None:
        """
        Args:
            node: who asks.
            shards: names of all; the routers' own with the embedded log.
        """
        self.shards = tuple(shards)
        self.terms = dict.fromkeys(shards, 0)
        self._node, self._routers = node, tuple(routers)
        self._is_fixed = self.shards == self._routers
        self._at = {shard: shard if self._is_fixed else "" for shard in shards}
        self._said = dict.fromkeys(routers, (0, 0))  # by router: run and number of what it has said last
        self._there: set[str] = set()
        self._ask_at = 0.0
        self._lost_at: dict[str, float] = {}  # shards without an owner, since when

    def know(self, routers: Iterable[str]) -> None:
        """All routers of a topology that has changed, which are those of before and perhaps more."""
        self._routers = tuple(routers)
        self._said = dict.fromkeys(self._routers, (0, 0)) | self._said

    def router_of(self, shard: str) -> str:
        """The router that owns a shard; "" if that is not known."""
        return self._at[shard]

    def is_there(self, shard: str) -> bool:
        """Its owner is known, and connected."""
        return self._at[shard] in self._there

    def at(self, router: str) -> list[str]:
        """The shards that a router owns."""
        return [shard for shard, owner in self._at.items() if owner == router]

    def on_link(self, router: str, is_connected: bool) -> None:
        """A router is there, or is not any more."""
        if is_connected != (router in self._there):
            (self._there.add if is_connected else self._there.discard)(router)
            self._ask_at = 0.0

    def on_owned(self, m: Owned) -> list[str]:
        """What a router says of itself. Returns the shards that are at another place now."""
        if self._is_fixed or (m.run, m.n) < self._said.get(m.router, (m.run, m.n + 1)):
            return []
        self._said[m.router] = m.run, m.n
        owned = {shard: term for shard, term in m.shards if term >= self.terms.get(shard, term + 1)}
        moved = [shard for shard in self.at(m.router) if shard not in owned]
        for shard in moved:
            self._at[shard] = ""
        for shard, term in owned.items():
            if self._at[shard] != m.router or self.terms[shard] != term:
                self._at[shard], self.terms[shard] = m.router, term
                moved.append(shard)
        return moved

    def on_moved(self, m: Moved) -> list[str]:
        """A router was asked for a shard that it does not own. Returns the shards that are at another place now."""
        if self._is_fixed or self._at.get(m.shard, "") != m.router:
            return []
        self._at[m.shard], self._ask_at = "", 0.0
        return [m.shard]

    def due(self, now: float) -> list[Send]:
        """What is to be asked now."""
        if self._is_fixed or now < self._ask_at:
            return []
        self._ask_at = now + ASK_S
        self._lost_at = {shard: self._lost_at.get(shard, now) for shard in self.at("")}
        for shard, since in self._lost_at.items():
            if now - since > LOST_S:
                self.terms[shard] = 0
        ask = AskOwned(self._node)
        return [Send(router, ask, MESSAGE_BYTES) for router in self._routers if router in self._there]

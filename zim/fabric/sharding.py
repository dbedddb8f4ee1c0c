"""Who owns what: rendezvous hashing. Adding a node moves 1/n of the keys, and nobody needs a table.

Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996. blake2b, because Python's `hash` differs
from process to process.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

CACHED = 1 << 15  # streams whose owner is known, some 6 MB: to hash one for several routers costs microseconds


def rank(key: str, nodes: Sequence[str]) -> list[str]:
    """The nodes in the order in which they would own the key: the first one does, the next one is its stand-in.

    Args:
        key: a stream's canonical name (`u:7`, `r:1`, `*`) for routers, a comet's name for jobs.
        nodes: node names.
    """
    return sorted(nodes, key=lambda node: _weight(node, key), reverse=True)


def _weight(node: str, key: str) -> bytes:
    return blake2b(f"{node} {key}".encode(), digest_size=8).digest()


class Shards:
    """Owners of streams among a fixed set of routers."""

    def __init__(self, routers: Sequence[str]) -> None:
        self.routers = tuple(routers)
        self.owner = lru_cache(CACHED)(self._owner) if len(self.routers) > 1 else self._owner

    def home(self, push_id: str) -> str:
        """The router that alone knows what the key of a push was used for. Not cached: ids do not come back."""
        return self._owner(push_id)

    def _owner(self, stream: str) -> str:
        if len(self.routers) == 1:
            return self.routers[0]
        return max(self.routers, key=lambda node: _weight(node, stream))

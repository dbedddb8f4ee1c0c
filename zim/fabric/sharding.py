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
        key: a stream's canonical name (`u:7`, `r:1`, `*`) for shards, a comet's name for jobs.
        nodes: names of shards, or of nodes.
    """
    return sorted(nodes, key=lambda node: _weight(node, key), reverse=True)


def _weight(node: str, key: str) -> bytes:
    return blake2b(f"{node} {key}".encode(), digest_size=8).digest()


class Shards:
    """Which of a fixed set of shards a stream is in."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.of = lru_cache(CACHED)(self._of) if len(self.names) > 1 else self._of

    def home(self, push_id: str) -> str:
        """The shard that alone knows what the key of a push was used for. Not cached: ids do not come back."""
        return self._of(push_id)

    def _of(self, stream: str) -> str:
        if len(self.names) == 1:
            return self.names[0]
        return max(self.names, key=lambda name: _weight(name, stream))

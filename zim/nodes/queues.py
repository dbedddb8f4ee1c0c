"""The queues of a node as metrics: how full each is, and how much it has dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from zim.metrics import Metric, counter, gauge


class Queue(Protocol):
    """Bounded in bytes: Batches, a PeerLink."""

    @property
    def waiting_bytes(self) -> int:
        """Of what waits."""

    @property
    def dropped(self) -> int:
        """How many items were not taken, or given up."""


def queues(kind: str, found: Mapping[str, Queue]) -> Iterator[Metric]:
    """Two metrics over all queues of a node.

    Args:
        kind: of the node.
        found: by name: of the peer that it leads to, or of what waits in it.
    """
    fill = {name: queue.waiting_bytes for name, queue in found.items()}
    yield gauge(f"zim_{kind}_queue_bytes", "What waits in each queue", fill, "queue")
    drops = {name: queue.dropped for name, queue in found.items()}
    yield counter(f"zim_{kind}_queue_dropped_total", "What each queue did not take, or gave up", drops, "queue")

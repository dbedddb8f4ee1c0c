"""Limits so small that a fabric of five people reaches them. Half of all seeds are played with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from tests.simulation import disk
from zim.nodes.comet import feed, passes, results, views
from zim.nodes.router import intake, owning, questions, shard, storage
from zim.nodes.router.log import memory

SMALL: dict[ModuleType, dict[str, float]] = {
    disk: {"KEEP_S": 1.5},
    owning: {"SETTLED_S": 1.0},
    feed: {"HELD_BYTES": 1_200, "UNSENT": 4, "WINDOW_BYTES": 400},
    passes: {"PASS_BYTES": 600, "READS": 2},
    results: {"RESULTS": 3},
    views: {"QUEUE_BYTES": 900},
    intake: {"ADMITTED_BYTES": 3_000, "RETRIES": 3},
    questions: {"QUEUE_BYTES": 300},
    shard: {"PAGE_BYTES": 900, "ITEMS": 1, "UNDECIDED": 2},
    storage: {"PAGE_BYTES": 900},
    memory: {"IDLE_S": 2.0, "KEYS_AT_ONCE": 5, "IDLE_STREAMS": 1},
}


def are_small(seed: int) -> bool:
    """Whether a seed is played with them."""
    return seed % 2 == 1


@contextmanager
def small_limits() -> Iterator[None]:
    """Everything in here has them."""
    before = {module: {name: getattr(module, name) for name in limits} for module, limits in SMALL.items()}
    _set(SMALL)
    try:
        yield
    finally:
        _set(before)


def _set(limits: dict[ModuleType, dict[str, float]]) -> None:
    for module, mine in limits.items():
        for name, limit in mine.items():
            setattr(module, name, limit)

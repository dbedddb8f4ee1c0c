"""Which nodes a simulated fabric has, as a topology tells it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from zim.fabric.sharding import Shards

KINDS = ("router", "job", "comet", "logic")
USUAL = (2, 2, 2, 2)


@dataclass(frozen=True)
class Layout:
    """So many of each kind: `router-1` up to `router-<routers>`, and so on.

    Attributes:
        n_shards: of a shared log; 0 without one.
    """

    counts: tuple[int, ...] = USUAL
    n_shards: int = 0

    def __iter__(self) -> Iterator[str]:
        """All of them."""
        return (name for kind in KINDS for name in self.of(kind))

    def of(self, kind: str) -> list[str]:
        """Those of a kind."""
        return [f"{kind}-{n}" for n in range(1, self.counts[KINDS.index(kind)] + 1)]

    def but(self, kind: str, count: int) -> Layout:
        """Another number of a kind."""
        counts = tuple(count if k == kind else n for k, n in zip(KINDS, self.counts, strict=True))
        return Layout(counts, self.n_shards)

    def one_more(self, kind: str) -> Layout:
        """With another node of a kind."""
        return self.but(kind, len(self.of(kind)) + 1)

    @cached_property
    def routers(self) -> Sequence[str]:
        """Names of the routers; comets, jobs, logics: of the others."""
        return self.of("router")

    @cached_property
    def comets(self) -> Sequence[str]:
        """See routers."""
        return self.of("comet")

    @cached_property
    def jobs(self) -> Sequence[str]:
        """See routers."""
        return self.of("job")

    @cached_property
    def logics(self) -> Sequence[str]:
        """See routers."""
        return self.of("logic")

    @cached_property
    def shards(self) -> Shards:
        """Which shard a stream is in."""
        return Shards([f"shard-{n}" for n in range(1, self.n_shards + 1)] or self.routers)

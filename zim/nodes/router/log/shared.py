"""A log that several routers share: who owns which shard, and the log of each. What every such engine must do.

The engine's rows say who owns what, and nothing else does. A router that lives shows it by *beats*: one synchronous
commit, which also reads all rows. Whether somebody is dead is decided by clocks of those who look, never by the
engine's: see `zim.nodes.router.owning`. Every call blocks only the calling greenlet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from zim.nodes.router.log import Lease, Log
from zim.nodes.router.log.receipts import ReceiptStore


class Durable(NamedTuple):
    """What the owner of a shard has. lease: the right to write the log."""

    log: Log
    lease: Lease
    receipts: ReceiptStore


class Beat(NamedTuple):
    """A router, as its row says.

    Attributes:
        router: its name.
        run: of its process: a number above those of all earlier runs of that name.
        number: how many times this run has beaten.
        time_ms: its log time when it did so last.
        comets: how many comets it hears.
        is_dead: somebody has declared this run dead, or it has left.
    """

    router: str
    run: int
    number: int
    time_ms: int
    comets: int
    is_dead: bool = False


class Holding(NamedTuple):
    """A shard, as its row says. router, run: of the owner; "" and 0 before there was one. term: of the owner."""

    shard: str
    router: str
    run: int
    term: int


class Rows(NamedTuple):
    """All rows, as of one moment: beats by router, holdings by shard."""

    beats: Mapping[str, Beat]
    holdings: Mapping[str, Holding]


class WhereShared(Protocol):
    """Where a shared log is, as `zim.topology.LogPlace` has it."""

    @property
    def url(self) -> str:
        """Without a password."""

    @property
    def passfile(self) -> Path | None:
        """The file that has it; None for where libpq looks by itself."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all shards."""

    @property
    def single_copy(self) -> bool:
        """Commits may be on one machine alone."""


class SharedLog(Protocol):
    """The rows of routers and shards, and the logs of shards.

    Any call may raise Unavailable (surely nothing was changed) or Unknown (it cannot be told; it may be asked again).

    Attributes:
        shards: names of all, fixed when the log was made.
        single_copy: commits may be on one machine alone, as the topology has it.
    """

    shards: Sequence[str]
    single_copy: bool

    @property
    def is_replicated(self) -> bool:
        """Commits waited for a second machine when it was looked last."""

    @property
    def connections(self) -> int:
        """How many were made to the engine in this run."""

    def look(self) -> Rows:
        """What the rows say."""

    def enter(self, router: str) -> int:
        """A new run of a router, which replaces the one before it in its row. Durable.

        Returns:
            Its number.
        """

    def beat(self, router: str, run: int, time_ms: int, comets: int) -> Rows:
        """This run lives. Durable.

        Raises:
            Fenced: it was declared dead, or another run of that name has entered.
        """

    def bury(self, beat: Beat) -> bool:
        """Declares a run dead, if its row is still as it was seen. Durable. Whether it was."""

    def take(self, holding: Holding, router: str, run: int) -> Lease | None:
        """Makes a run that lives the owner of a shard, if the shard's row is still as it was seen. Durable. The term is
        the larger of the old one + 1 and the engine's clock in ms; the owner before it is fenced from then on.

        Returns:
            Nothing if the row has changed, or the run does not live.
        """

    def give(self, lease: Lease, router: str, run: int) -> Lease | None:
        """Makes another run that lives the owner of a shard of ours, as `take` does. Nothing of ours may be under way.

        Returns:
            The lease of the next owner; nothing if that run does not live, or the shard is not ours any more.
        """

    def leave(self, router: str, run: int) -> None:
        """This run ends. Its shards are free at once."""

    def open(self, lease: Lease) -> Durable:
        """The log and the receipts of a shard, for who has its lease."""

    def close(self) -> None:
        """Gives back what it holds."""

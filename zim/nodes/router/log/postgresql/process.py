"""What all shards of one process share: connections, and the appends that go together."""

from __future__ import annotations

import time
from collections.abc import Callable

from zim.nodes.router.log.postgresql.appending import Appender
from zim.nodes.router.log.postgresql.connecting import Pool, PostgresServer, ServerLine
from zim.nodes.router.log.postgresql.vacuuming import Vacuum
from zim.nodes.router.log.postgresql.writing import Outcome, ShardClaim

APPEND_S = 5.0  # an append that takes longer is given up, and asked what became of it
ROWS_S = 1.5  # a beat that takes longer is of no use
ASIDE_S = 5.0  # everything else
VACUUM_S = 6 * 3_600.0
LINES = 4  # for everything else


class Process:
    """Connections of one process.

    Attributes:
        appends: the connection of appends alone. rows: of beats, which must never wait for an append. pool: of
            everything else. receipts: of what may be lost in a crash.
        may_be_alone: commits need no standby.
        is_replicated: they had one when it was looked last.
        newest: by number of a shard, the newest position that is known here.
        behind_since: since when servers do not know that one; monotonic.
        ring_waits_until: somebody reads the table of receipts that is to be emptied next; monotonic.
    """

    def __init__(self, server: PostgresServer, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._server, self.monotonic = server, monotonic
        self.may_be_alone = server.place.single_copy
        self.is_replicated = True
        self.newest: dict[int, int] = {}
        self.behind_since: dict[int, float] = {}
        self.ring_waits_until = 0.0
        self.appends = ServerLine(server, APPEND_S)
        self.rows = ServerLine(server, ROWS_S)
        self.receipts = ServerLine(server, ASIDE_S, commits="off")
        self.pool = Pool(server, LINES, ASIDE_S)
        self.vacuum = Vacuum(ServerLine(server, VACUUM_S), monotonic)
        self._appender = Appender(self.appends)

    def append(self, claim: ShardClaim) -> Outcome:
        """See Appender."""
        return self._appender.append(claim)

    @property
    def is_full(self) -> bool:
        """The engine's disk had no room for the last append."""
        return self.appends.is_full

    @property
    def connections(self) -> int:
        """How many were made in this run."""
        return self.appends.made + self.rows.made + self.receipts.made + self.pool.made

    def distrust(self) -> None:
        """The server does not know what it should: the next connections are made to others, if there are any."""
        self._server.distrust()
        self.appends.drop()
        self.pool.drop()

    def close(self) -> None:
        """Ends all connections. Switches: until who uses them is done."""
        for line in (self.appends, self.rows, self.receipts, self.pool, self.vacuum):
            line.close()

"""How much clients may send: packets and bytes of each connection. Pure: `now` is an argument.

Nothing is kept of a connection that is within: its buckets are full, and forgotten.
"""

from __future__ import annotations

from typing import NamedTuple

from zim.fabric.buckets import Buckets, renewed
from zim.fabric.ceilings import Ceilings
from zim.fabric.refusals import Refusals

PACKETS, BYTES = "packets_per_connection", "bytes_per_connection"
PAUSE_S = 1.0  # in which nothing is read: TCP tells the client to wait
PATIENCE = 10  # pauses in a row; who then sends too much is closed


class _Strikes(NamedTuple):
    """Pauses of one connection in a row, and when the last one ends."""

    pauses: int
    until: float


class Inflow:
    """That of all clients of a comet.

    Attributes:
        is_on: there is a limit.
        refusals: pauses, by limit.
    """

    def __init__(self) -> None:
        self.is_on = False
        self.refusals = Refusals((PACKETS, BYTES))
        self._packets: Buckets[int] | None = None
        self._bytes: Buckets[int] | None = None
        self._strikes: dict[int, _Strikes] = {}  # of those alone who had to pause

    def follow(self, limits: Ceilings) -> None:
        """From now on these."""
        self._packets = renewed(self._packets, limits.packets_per_connection)
        self._bytes = renewed(self._bytes, limits.bytes_per_connection)
        self.is_on = self._packets is not None or self._bytes is not None

    def came(self, conn: int, packets: int, size: int, now: float) -> None:
        """A client has sent so much, and it has been read: what is too much is owed."""
        for table, cost in ((self._packets, packets), (self._bytes, size)):
            if table is not None and cost:
                table.take(conn, min(cost, table.rate.burst), now)

    def pause_s(self, conn: int, whom: str, now: float) -> float:
        """For how long nothing is to be read from it; 0 if it owes nothing.

        Args:
            whom: its address, for people.
        """
        for limit, table in ((PACKETS, self._packets), (BYTES, self._bytes)):
            if table is not None and table.wait_s(conn, 0.0, now):
                had = self._strikes.get(conn)
                is_in_a_row = had is not None and now < had.until + PAUSE_S
                pauses = had.pauses + 1 if had is not None and is_in_a_row else 1
                self._strikes[conn] = _Strikes(pauses, now + PAUSE_S)
                self.refusals.count(limit, whom)
                return PAUSE_S
        return 0.0

    def goes_on(self, conn: int) -> bool:
        """It has been told to wait again and again, and has sent too much whenever it was read."""
        had = self._strikes.get(conn)
        return had is not None and had.pauses > PATIENCE

    def forget(self, conn: int) -> None:
        """It is closed."""
        if self._strikes:
            self._strikes.pop(conn, None)

"""Room that trimming has made is used again: VACUUM, as soon as a fifth of a table is of rows that are gone.

The engine's own comes once a minute at best, and an administrator may have tuned it. Several routers do not do it
twice: whoever is second finds the table locked, and skips it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import gevent

from zim.errors import ZimError
from zim.nodes.router.log.postgresql.connecting import SCHEMA, Connection, ServerLine

log = logging.getLogger(__name__)

LOOK_S = 5.0
LEAST_ROWS = 5_000  # a table with fewer that are gone is left alone
SHARE = 0.2  # of rows that are gone
REST = 5  # times as long as the last one took, until the next of that table

_TABLES = ("records", "bodies", "keys", "positions", "streams", "cursors")
_CHURN = "SELECT relname, n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE schemaname = %s"


class Vacuum:
    """Of the tables of one log."""

    def __init__(self, line: ServerLine, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._line, self._monotonic = line, monotonic
        self._next_at = 0.0
        self._resting: dict[str, float] = {}  # until when
        self._is_running = False
        self._running: gevent.Greenlet[[], None] | None = None
        self.runs = 0

    def close(self) -> None:
        """Ends its connection; a VACUUM that runs goes on in the server, to its end."""
        if self._running is not None:
            self._running.kill()
        self._line.close()

    def tend(self) -> None:
        """Looks, now and then, in a greenlet of its own. Does not switch."""
        if self._is_running or self._monotonic() < self._next_at:
            return
        self._is_running = True
        self._running = gevent.spawn(self._run)

    def _run(self) -> None:
        try:
            self._line.read(self._vacuum)
        except ZimError as e:
            log.warning("the log's tables cannot be vacuumed", extra={"error": str(e)})
        finally:
            self._next_at = self._monotonic() + LOOK_S
            self._is_running = False

    def _vacuum(self, connection: Connection) -> None:
        rows = connection.execute(_CHURN, (SCHEMA,)).fetchall()
        for table, dead, live in sorted(rows, key=lambda row: -row[1]):
            now = self._monotonic()
            if table not in _TABLES or dead < max(LEAST_ROWS, SHARE * live) or now < self._resting.get(table, 0.0):
                continue
            connection.execute(f"VACUUM (SKIP_LOCKED, TRUNCATE false, INDEX_CLEANUP on) {table}".encode())
            self.runs += 1
            self._resting[table] = self._monotonic() + REST * (self._monotonic() - now)

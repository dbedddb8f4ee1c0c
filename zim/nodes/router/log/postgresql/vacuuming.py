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

LOOK_S = 5.0  # between two looks, unless we have deleted enough ourselves since the last one
LEAST_ROWS = 2_000  # a table with fewer that are gone is left alone
SHARE = 0.2  # of rows that are gone
REST = 5  # times as long as the last one took, until the next of that table

_TABLES = ("records", "bodies", "keys", "positions", "streams", "cursors")
_CHURN = "SELECT relname, n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE schemaname = %s"


class Vacuum:
    """Of the tables of one log."""

    def __init__(self, line: ServerLine, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._line, self._monotonic = line, monotonic
        self._next_at = 0.0
        self._deleted: dict[str, int] = {}  # by us, since the last VACUUM: the engine's own count is a second late
        self._live: dict[str, int] = {}
        self._resting: dict[str, float] = {}  # until when
        self._is_running = False
        self._running: gevent.Greenlet[[], None] | None = None
        self.runs = 0

    def close(self) -> None:
        """Ends its connection; a VACUUM that runs goes on in the server, to its end."""
        if self._running is not None:
            self._running.kill()
        self._line.close()

    def tend(self, **deleted: int) -> None:
        """Looks, now and then, in a greenlet of its own. Does not switch.

        Args:
            deleted: rows, by table, since it was called last.
        """
        is_due = self._monotonic() >= self._next_at
        for table, count in deleted.items():
            self._deleted[table] = self._deleted.get(table, 0) + count
            is_due = is_due or self._is_enough(table, self._deleted[table])
        if self._is_running or not is_due:
            return
        self._is_running = True
        self._running = gevent.spawn(self._run)

    def _is_enough(self, table: str, gone: int) -> bool:
        return gone >= max(LEAST_ROWS, SHARE * self._live.get(table, 0))

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
        self._live = {table: live for table, _, live in rows}
        for table, dead, _ in sorted(rows, key=lambda row: -row[1]):
            now = self._monotonic()
            gone = max(dead, self._deleted.get(table, 0))
            if table not in _TABLES or not self._is_enough(table, gone) or now < self._resting.get(table, 0.0):
                continue
            self._deleted[table] = 0
            connection.execute(f"VACUUM (SKIP_LOCKED, TRUNCATE false, INDEX_CLEANUP on) {table}".encode())
            self.runs += 1
            self._resting[table] = self._monotonic() + REST * (self._monotonic() - now)

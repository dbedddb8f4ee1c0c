"""Receipts on disk, for as long as the topology keeps them. A crash may lose the last second of them, never a message.

Beside the log and not in it, for nobody waits for a receipt's commit. In segments by time, each a table, so that old
ones go with one DROP and a new row lands in a small index.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeVar

from zim.nodes.router.receipts import Receipt, Tally

log = logging.getLogger(__name__)

FILE = "receipts.db"
SEGMENTS = 8  # of what is kept
ROWS = 200  # of one statement: each statement gives the interpreter away, and has to get it back

_COLUMNS = (
    "push_id, serial, run, accepted_ms, kept_ms, reported_ms, offline, open_rows,"
    " targeted, delivered, gone, shed, expired, unknown"
)
_WIDTH = _COLUMNS.count(",") + 1

T = TypeVar("T")


class ReceiptStore:
    """See the module. Every method blocks only the calling greenlet."""

    def __init__(self, folder: Path, run: int, keep_s: float, in_thread: Callable[[Callable[[], Any]], Any]) -> None:
        """Opens it, or makes it anew if it cannot be read. Blocks.

        Args:
            folder: of the router; whoever calls holds its lock.
            run: the router's term: what earlier runs left pending is unknown.
            keep_s: how long receipts are kept.
            in_thread: runs a job in a thread.
        """
        self._run, self._in_thread = run, in_thread
        self._segment_ms = max(1, int(keep_s * 1000 / SEGMENTS))
        file = folder / FILE
        try:
            self._db = _open(file)
            self._totals = self._read_totals()
        except sqlite3.DatabaseError as e:
            log.warning("receipts are lost, their file cannot be read", extra={"file": str(file), "error": str(e)})
            for path in folder.glob(FILE + "*"):
                path.unlink()
            self._db = _open(file)
            self._totals = self._read_totals()

    def _read_totals(self) -> tuple[Tally, int, int, int]:
        _, offline, pushes, serial, *counts = self._db.execute("SELECT * FROM totals").fetchone() or [0] * 10
        self._serial: int = serial
        tally = Tally(*counts)
        tally.unknown += tally.pending
        return tally, offline, pushes, serial

    @property
    def totals(self) -> tuple[Tally, int, int, int]:
        """What was before this run: the tally of all pushes, users offline, how many pushes, the last serial."""
        return self._totals

    def write(self, receipts: Sequence[Receipt], tally: Tally, offline: int, pushes: int, now_ms: int) -> None:
        """Stores receipts as they are now, and the totals over all.

        Raises:
            sqlite3.Error: the disk does not take them.
        """
        rows = [
            (
                *(_key(r.push_id), r.serial, self._run, r.accepted_ms, r.kept_ms, r.reported_ms),
                *(r.offline, r.open_rows, *astuple(r.tally)),
            )
            for r in receipts
        ]
        self._serial = max([self._serial, *(r.serial for r in receipts)])
        totals = (offline, pushes, self._serial, *astuple(tally))
        self._in_thread(lambda: self._write(rows, totals, now_ms))

    def _write(self, rows: list[tuple[Any, ...]], totals: tuple[int, ...], now_ms: int) -> None:
        segment = now_ms // self._segment_ms
        with self._db:
            self._db.execute("BEGIN")
            self._make_segment(segment)
            for start in range(0, len(rows), ROWS):
                part = rows[start : start + ROWS]
                values = ",".join(["(" + ",".join("?" * _WIDTH) + ")"] * len(part))
                self._db.execute(
                    f"INSERT OR REPLACE INTO segment_{segment} ({_COLUMNS}) VALUES {values}",
                    [value for row in part for value in row],
                )
            self._db.execute("INSERT OR REPLACE INTO totals VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)", totals)

    def _make_segment(self, segment: int) -> None:
        names = self._segments()
        if f"segment_{segment}" not in names:
            self._db.execute(
                f"CREATE TABLE segment_{segment} ({_COLUMNS}, PRIMARY KEY (push_id, serial)) WITHOUT ROWID"
            )
        for name in names:
            if int(name.removeprefix("segment_")) < segment - SEGMENTS:
                self._db.execute(f"DROP TABLE {name}")

    def _segments(self) -> list[str]:
        """Newest first."""
        rows = self._db.execute("SELECT name FROM sqlite_schema WHERE name GLOB 'segment_*' AND type = 'table'")
        return sorted((name for (name,) in rows), key=lambda name: -int(name.removeprefix("segment_")))

    def find(self, push_id: str) -> list[Receipt]:
        """The receipts of a push. What an earlier run left pending is unknown."""
        found: list[Receipt] = self._in_thread(lambda: self._find(push_id))
        return found

    def _find(self, push_id: str) -> list[Receipt]:
        found: dict[int, Receipt] = {}
        for name in self._segments():
            for row in self._db.execute(f"SELECT {_COLUMNS} FROM {name} WHERE push_id = ?", (_key(push_id),)):
                _, serial, run, accepted_ms, kept_ms, reported_ms, offline, open_rows, *counts = row
                if serial in found:
                    continue  # an older state of it
                tally = Tally(*counts)
                if run != self._run:
                    tally.unknown += tally.pending
                found[serial] = Receipt(push_id, serial, accepted_ms, kept_ms, reported_ms, tally, offline, open_rows)
        return list(found.values())

    def close(self) -> None:
        """Gives back what it holds."""
        self._db.close()


def _open(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(
        "CREATE TABLE IF NOT EXISTS totals (one INTEGER PRIMARY KEY, offline, pushes, serial,"
        " targeted, delivered, gone, shed, expired, unknown)"
    )
    return db


def _key(push_id: str) -> bytes | str:
    """Push ids are 16 bytes in hex; any other text is itself."""
    try:
        return bytes.fromhex(push_id)
    except ValueError:
        return push_id

"""Receipts on disk, for as long as the topology keeps them. A crash may lose the last second of them, never a message.

Beside the log and not in it, for nobody waits for a receipt's commit. In segments by time, each a table, so that old
ones go with one DROP and a new row lands in a small index.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from typing_extensions import override

from zim.errors import NodeError, NotNow, Unavailable
from zim.fabric.tally import COUNTS, Tally
from zim.net.fairness import give_way
from zim.nodes.router.log.receipts import Before, ReceiptStore, RouterReceipt
from zim.nodes.router.log.sqlite import failures
from zim.nodes.router.log.sqlite.tables import parse_json
from zim.nodes.router.log.sqlite.worker import InThread, Worker, forget_cursors

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE = "receipts.db"
SEGMENTS = 8  # of what is kept
BUSY_S = 2.0  # someone else holds the file: a backup, a person with sqlite3
SORTED = 2_000  # rows that are sorted at once
ROWS = 200  # of one statement: each statement gives the interpreter away, and has to get it back

_COUNTS = ", ".join(COUNTS)
_COLUMNS = f"push_id, serial, run, accepted_ms, kept_ms, reported_ms, offline, open_rows, unserved, {_COUNTS}"
_NEW, _BEFORE = "unserved", "offline_users"
_WIDTH = _COLUMNS.count(",") + 1


class SqliteReceipts(ReceiptStore):
    """The receipts of one folder."""

    def __init__(self, folder: Path, run: int, keep_s: float, in_thread: InThread) -> None:
        """Opens it, or makes it anew if what is there is no such file. Blocks.

        Args:
            folder: of the router; whoever calls holds its lock.
            run: the router's term: what earlier runs left pending is unknown.
            keep_s: how long receipts are kept.
            in_thread: runs a job in a thread.

        Raises:
            NodeError: the disk or its rights do not let it.
        """
        self._run, self._keep_ms = run, int(keep_s * 1000)
        self._segment_ms = max(1, self._keep_ms // SEGMENTS)
        file = folder / FILE
        try:
            try:
                db, newest_ms, totals = _open(file)
            except sqlite3.DatabaseError as e:
                if not failures.is_damage(e):  # a full disk, say: no reason to lose them
                    raise
                log.warning("receipts are lost, their file cannot be read", extra={"file": str(file), "error": str(e)})
                for path in folder.glob(FILE + "*"):
                    path.unlink()
                db, newest_ms, totals = _open(file)
        except (sqlite3.Error, OSError) as e:
            is_full = failures.is_full(e) if isinstance(e, sqlite3.Error) else e.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (NotNow if is_full else NodeError)(f"{file} cannot be opened: {e}") from None
        self._worker = Worker(db, in_thread)
        self.newest_ms = newest_ms
        offline, pushes, self._serial, *counts = totals
        tally = Tally(*counts)
        left = tally.give_up()
        self.before = Before(tally, offline, pushes, self._serial, left)

    @override
    def write(self, receipts: Sequence[RouterReceipt], tally: Tally, offline: int, pushes: int, now_ms: int) -> None:
        rows: list[tuple[Any, ...]] = []
        for r in receipts:
            unserved = msgspec.json.encode(r.unserved) if r.unserved else None
            times = r.accepted_ms, r.kept_ms, r.reported_ms
            rows.append(
                (_encode_id(r.push_id), r.serial, self._run, *times, r.offline, r.open_rows, unserved, *r.tally.counts)
            )
            give_way()
        self._serial = max([self._serial, *(r.serial for r in receipts)])
        totals = (offline, pushes, self._serial, *tally.counts)
        self._run_job(lambda db: self._write(db, rows, totals, now_ms))

    def _run_job(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._worker.turn:
                return self._worker.run(job)
        except sqlite3.Error as e:
            raise Unavailable("the receipts", str(e)) from None

    def _write(self, db: sqlite3.Connection, rows: list[tuple[Any, ...]], totals: tuple[int, ...], now_ms: int) -> None:
        # Neighbours go to the same page, which is looked for once. In parts: while Python sorts nobody else runs.
        rows = [
            row for start in range(0, len(rows), SORTED) for row in sorted(rows[start : start + SORTED], key=_place)
        ]
        with db:
            db.execute("BEGIN")
            segment = self._make_segment(db, now_ms)
            for start in range(0, len(rows), ROWS):
                part = rows[start : start + ROWS]
                places = ",".join(["(" + ",".join("?" * _WIDTH) + ")"] * len(part))
                values = list(chain.from_iterable(part))
                db.execute(f"INSERT OR REPLACE INTO {segment} ({_COLUMNS}) VALUES {places}", values)
            db.execute("INSERT OR REPLACE INTO totals VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)", totals)
        forget_cursors(db)

    def _make_segment(self, db: sqlite3.Connection, now_ms: int) -> str:
        """The segment that is written to, a new one if the last is full of time; and the old ones go.

        Named by when they began, so that they stay in order when the topology changes how long they are kept.
        """
        begins = _segments(db)
        for i, began in enumerate(begins):
            ended = begins[i - 1] if i else now_ms
            if ended <= now_ms - self._keep_ms:
                db.execute(f"DROP TABLE segment_{began}")
        if begins and now_ms < begins[0] + self._segment_ms:
            return f"segment_{begins[0]}"
        db.execute(f"CREATE TABLE segment_{now_ms} ({_COLUMNS}, PRIMARY KEY (push_id, serial)) WITHOUT ROWID")
        return f"segment_{now_ms}"

    @override
    def find(self, push_id: str) -> list[RouterReceipt]:
        return self._run_job(lambda db: self._find(db, push_id))

    def _find(self, db: sqlite3.Connection, push_id: str) -> list[RouterReceipt]:
        found: dict[int, RouterReceipt] = {}
        for began in _segments(db):
            sql = f"SELECT {_COLUMNS} FROM segment_{began} WHERE push_id = ?"
            for row in db.execute(sql, (_encode_id(push_id),)):
                _, serial, run, accepted_ms, kept_ms, reported_ms, offline, open_rows, names, *counts = row
                if serial in found:
                    continue  # an older state of it
                tally = Tally(*counts)
                if run != self._run:
                    tally.give_up()
                times_ms = accepted_ms, kept_ms, reported_ms
                unserved = parse_json(names, list[str]) if names else ()
                found[serial] = RouterReceipt(push_id, serial, *times_ms, tally, offline, open_rows, unserved)
        return list(found.values())

    @override
    def close(self) -> None:
        """Switches: until a job that runs is done."""
        self._worker.close()


def _open(file: Path) -> tuple[sqlite3.Connection, int, tuple[int, ...]]:
    """The file, when its newest push was kept, and its totals.

    The totals are users offline, pushes, the last serial, and the counts of the tally.
    """
    db = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"CREATE TABLE IF NOT EXISTS totals (one INTEGER PRIMARY KEY, offline, pushes, serial, {_COUNTS})")
        row = db.execute(f"SELECT offline, pushes, serial, {_COUNTS} FROM totals").fetchone()
        begins = _segments(db)
        for began in begins:
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info(segment_{began})")]
            if _NEW not in columns:  # of an earlier version
                change = f"RENAME {_BEFORE} TO {_NEW}" if _BEFORE in columns else f"ADD COLUMN {_NEW}"
                db.execute(f"ALTER TABLE segment_{began} {change}")
            db.execute(f"SELECT {_COLUMNS} FROM segment_{began} LIMIT 1").fetchall()
        newest = f"SELECT ifnull(max(kept_ms), 0) FROM segment_{begins[0]}" if begins else "SELECT 0"
        (newest_ms,) = db.execute(newest).fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db, newest_ms, row or (0,) * 9


def _segments(db: sqlite3.Connection) -> list[int]:
    """When each began, the newest first."""
    rows = db.execute("SELECT name FROM sqlite_schema WHERE name GLOB 'segment_[0-9]*' AND type = 'table'").fetchall()
    return sorted((int(name.removeprefix("segment_")) for (name,) in rows), reverse=True)


def _place(row: tuple[Any, ...]) -> tuple[bool, bytes | str, int]:
    """Where a row stands in its segment: texts come before bytes."""
    return isinstance(row[0], bytes), row[0], row[1]


def _encode_id(push_id: str) -> bytes | str:
    """A push id as it is stored. Most are 16 bytes in hex; any other text is itself."""
    try:
        return bytes.fromhex(push_id)
    except ValueError:
        return push_id

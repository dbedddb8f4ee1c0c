"""The log of a router that stands still, to be copied into another engine. Everything here blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from zim.fabric.bans import Ban
from zim.nodes.router.log import Damaged
from zim.nodes.router.log.copying import SourceKey, SourceLog, SourceRecord, SourceStream
from zim.nodes.router.log.sqlite import tables
from zim.nodes.router.log.sqlite.opening import open_database
from zim.nodes.router.log.sqlite.planning import damage

_AT_ONCE_BYTES = 8 << 20

_STREAMS = f"""
    SELECT s.id, s.name, s.floor, {tables.HEAD}, ifnull((SELECT offset FROM cursors WHERE stream = s.id), 0)
    FROM streams AS s WHERE s.id > ? ORDER BY s.id LIMIT ?"""
_RECORDS = """
    SELECT r.offset, r.push, r.crc, r.only_for, p.push_id, p.op, p.time_ms, p.expires_ms, p.wall_ms, p.body,
        EXISTS (SELECT 1 FROM shared WHERE shared.push = r.push)
    FROM records AS r LEFT JOIN pushes AS p ON p.id = r.push
    WHERE r.stream = ? AND r.offset > ? ORDER BY r.offset LIMIT ?"""
# Neither pushes nor records can be looked up by what a key says: so those of keys are put into tables of their own.
_KEYED = (
    "PRAGMA temp_store = FILE",
    """CREATE TEMP TABLE keyed AS
        SELECT p.id AS push, p.push_id AS push_id, p.time_ms AS time_ms FROM pushes AS p WHERE p.push_id IN (
            SELECT iif(instr(push_id, '.'), substr(push_id, 1, instr(push_id, '.') - 1), push_id) FROM keys
        )""",
    "CREATE INDEX temp.keyed_by_id ON keyed (push_id, time_ms)",
    "CREATE INDEX temp.keyed_by_push ON keyed (push)",
    """CREATE TEMP TABLE keyed_records AS
        SELECT r.push, r.stream, r.offset FROM records AS r WHERE r.push IN (SELECT push FROM keyed)""",
    "CREATE INDEX temp.keyed_records_by_push ON keyed_records (push)",
)
_KEY = "SELECT id, push_id, digest, time_ms, home_ms, offsets FROM keys"
_OF_KEY = """
    SELECT s.name, r.offset FROM keyed AS k JOIN keyed_records AS r ON r.push = k.push
    JOIN streams AS s ON s.id = r.stream WHERE k.push_id = ? AND k.time_ms = ?"""


class SqliteSource(SourceLog):
    """The log in a router's folder, of which the caller has the lock."""

    def __init__(self, name: str, folder: Path, routers: Sequence[str]) -> None:
        """
        Args:
            name: of the router.
            routers: names of all routers of its topology.

        Raises:
            NodeError: it is damaged, of another program, a newer zim or other routers; says what to do.
        """
        opened = open_database(folder, routers, sqlite3.Connection)
        self._opened, self._db = opened, opened.reader
        self.name, self.epoch, self.time_ms = name, opened.epoch, opened.time_ms
        (self.next_seq,) = self._db.execute("SELECT next_seq FROM meta").fetchone()
        (self.records,) = self._db.execute("SELECT count(*) FROM records").fetchone()
        self._is_ready = False

    @override
    def streams(self, after: int, most: int) -> list[SourceStream]:
        return [SourceStream(*row) for row in self._db.execute(_STREAMS, (after, most))]

    @override
    def read(self, stream: SourceStream, after: int, most: int) -> list[SourceRecord]:
        found: list[SourceRecord] = []
        size = 0
        for row in self._db.execute(_RECORDS, (stream.id, after, most)):
            offset, push, crc, only, push_id, op, time_ms, expires_ms, wall_ms, body, is_shared = row
            if why := damage(stream.name, offset, crc, only, push_id, op, time_ms, expires_ms, body):
                raise Damaged(f"{self.name}, {stream.name}, offset {offset}", why, offset)
            times = time_ms, expires_ms, wall_ms
            found.append(SourceRecord(offset, push, push_id, op, *times, only or "", body, bool(is_shared)))
            size += len(body)
            if size > _AT_ONCE_BYTES:
                break
        return found

    @override
    def keys(self, after: int, most: int) -> list[SourceKey]:
        rows = self._db.execute(f"{_KEY} WHERE id > ? ORDER BY id LIMIT ?", (after, most)).fetchall()
        return [self._key(row) for row in rows]

    @override
    def key(self, key_id: str) -> SourceKey | None:
        row = self._db.execute(f"{_KEY} WHERE push_id = ?", (key_id,)).fetchone()
        return None if row is None else self._key(row)

    def _key(self, row: Any) -> SourceKey:
        if not self._is_ready:
            for statement in _KEYED:
                self._db.execute(statement)
            self._is_ready = True
        number, key_id, digest, time_ms, home_ms, text = row
        offsets = tables.parse_json(text, list[int])
        found = dict(self._db.execute(_OF_KEY, (key_id.partition(".")[0], time_ms)).fetchall())
        named = {stream: offset for stream, offset in found.items() if offset in offsets}
        # Parts that were stored at the same time are told apart by their offsets: these must be all of them, in order.
        is_whole = [offset for _, offset in sorted(named.items())] == offsets
        return SourceKey(number, key_id, digest, time_ms, home_ms, named if is_whole else None)

    @override
    def bans(self) -> list[Ban]:
        return tables.bans(self._db)

    def close(self) -> None:
        """Gives the database back."""
        self._opened.reader.close()
        self._opened.writer.close()

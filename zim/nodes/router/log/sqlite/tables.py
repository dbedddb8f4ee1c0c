"""Every statement of the log. Blocking; called in a thread.

sqlite3 gives up the GIL at each step of a statement and must get it back from the hub, which if busy gives it up only
every switch interval (5 ms). So rows go in many at a time, and come out as one row of JSON, bodies as one blob.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import msgspec

from zim.fabric.bans import Ban, Banned
from zim.nodes.router.log import RECORD_BYTES, Damaged, Fenced, StreamPage
from zim.nodes.router.log.keys import StoredKey
from zim.nodes.router.log.sqlite.planning import Ids, Plan, content_checksum, record_checksum
from zim.nodes.router.log.standings import StreamStanding
from zim.nodes.router.log.window import Window
from zim.protocol.messages import Record

T = TypeVar("T")

# offsets: of the streams of the push, in the order of their names.
KEYS = """
CREATE TABLE keys (
    id INTEGER PRIMARY KEY, push_id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, time_ms INTEGER NOT NULL,
    home_ms INTEGER NOT NULL, offsets TEXT NOT NULL
);
"""
# Of a ban of a user the network is "", of one of a network the user; of all devices of a user the device.
BANS = """
CREATE TABLE bans (
    id INTEGER PRIMARY KEY, user TEXT NOT NULL, device TEXT NOT NULL, network TEXT NOT NULL, reason TEXT NOT NULL,
    by TEXT NOT NULL, made_ms INTEGER NOT NULL, ends_ms INTEGER NOT NULL, UNIQUE (user, device, network)
);
"""
# A record is small, and written where its stream is; its push goes to the end of pushes, once. shared counts the
# records of a push beyond its first. A stream's head is its last record's offset, or its floor if it has none: so an
# append writes no row of streams.
SCHEMA = f"""{KEYS}{BANS}
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL, routers TEXT NOT NULL, owner TEXT NOT NULL,
    term INTEGER NOT NULL, batch INTEGER NOT NULL, time_ms INTEGER NOT NULL, next_seq INTEGER NOT NULL
);
CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, floor INTEGER NOT NULL);
CREATE TABLE pushes (
    id INTEGER PRIMARY KEY, push_id TEXT NOT NULL, op INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL, body BLOB NOT NULL, wall_ms INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE shared (push INTEGER PRIMARY KEY, extra INTEGER NOT NULL);
CREATE TABLE records (
    stream INTEGER NOT NULL, offset INTEGER NOT NULL, push INTEGER NOT NULL, crc INTEGER NOT NULL, only_for TEXT,
    PRIMARY KEY (stream, offset)
) WITHOUT ROWID;
CREATE TABLE cursors (stream INTEGER PRIMARY KEY, offset INTEGER NOT NULL);
CREATE TRIGGER record_gone AFTER DELETE ON records BEGIN
    DELETE FROM pushes WHERE id = OLD.push AND NOT EXISTS (SELECT 1 FROM shared WHERE push = OLD.push);
    UPDATE shared SET extra = extra - 1 WHERE push = OLD.push;
    DELETE FROM shared WHERE push = OLD.push AND extra = 0;
END;
"""

_COLUMNS = {"streams": 3, "pushes": 7, "shared": 2, "records": 5, "keys": 6}
# Of one statement: 12,288 parameters of the 32,766 that SQLite takes; and sorted in a millisecond, in which no other
# thread of the process runs.
_MOST_ROWS = 2_048


@cache
def _insert(table: str, rows: int) -> str:
    row = "(" + ", ".join("?" * _COLUMNS[table]) + ")"
    verb = "INSERT OR REPLACE" if table == "keys" else "INSERT"  # a key past its window may still be there
    if rows == 1:
        return f"{verb} INTO {table} VALUES {row}"
    return f"{verb} INTO {table} SELECT * FROM (VALUES {', '.join([row] * rows)}) WHERE column1 IS NOT NULL"


def _insert_all(connection: sqlite3.Connection, table: str, values: list[Any]) -> None:
    """Rows in statements of a power of two, the last one filled up with NULL: few texts, so each is compiled once."""
    width = _COLUMNS[table]
    for start in range(0, len(values), _MOST_ROWS * width):
        part = values[start : start + _MOST_ROWS * width]
        count = len(part) // width
        if table == "records":  # by stream and offset: neighbours go to the same page, which is looked for once
            part = list(chain.from_iterable(sorted(zip(*[iter(part)] * width, strict=True))))
        rows = 1 << (count - 1).bit_length()
        connection.execute(_insert(table, rows), part + [None] * ((rows - count) * width))


def rows(connection: sqlite3.Connection, sql: str, parameters: Any, of: type[T]) -> T:
    """What a statement gives that makes its whole answer one text of JSON.

    Raises:
        Damaged: the answer is of another type.
    """
    (text,) = connection.execute(sql, parameters).fetchone()
    return parse_json(text, of)


def parse_json(text: Any, of: type[T]) -> T:
    """A text of JSON that is in the database.

    Raises:
        Damaged: it is of another type.
    """
    try:
        return msgspec.json.decode(text, type=of)
    except (TypeError, msgspec.DecodeError) as e:
        raise Damaged("log.db", f"a row is not what was written ({e})") from None


# ---------------------------------------------------------------- writing, inside a transaction


def claim(connection: sqlite3.Connection, owner: str, term: int, batch: int, time_ms: int = 0) -> None:
    """Numbers the transaction, if the term is still the owner's.

    Raises:
        Fenced: it is not.
    """
    done = connection.execute(
        "UPDATE meta SET batch = ?, time_ms = max(time_ms, ?) WHERE one = 1 AND term = ? AND owner = ?",
        (batch, time_ms, term, owner),
    )
    if not done.rowcount:
        raise Fenced(f"{owner} of term {term} is not the owner any more")


def write(connection: sqlite3.Connection, plan: Plan) -> None:
    """Writes a batch."""
    for table in _COLUMNS:
        values = getattr(plan, table)
        if values:
            _insert_all(connection, table, values)


def acquire(connection: sqlite3.Connection, owner: str, least_term: int) -> int:
    """Writes the new owner. Returns its term."""
    connection.execute("UPDATE meta SET owner = ?, term = max(term + 1, ?) WHERE one = 1", (owner, least_term))
    return rows(connection, "SELECT json_array(term) FROM meta", (), tuple[int])[0]


def reserve_seqs(connection: sqlite3.Connection, count: int) -> int:
    """Returns the first of them."""
    connection.execute("UPDATE meta SET next_seq = next_seq + ? WHERE one = 1", (count,))
    return rows(connection, "SELECT json_array(next_seq) FROM meta", (), tuple[int])[0] - count


def move_cursor(connection: sqlite3.Connection, stream: int, offset: int) -> int:
    """Moves a stream's cursor forward. Returns where it is."""
    connection.execute(
        "INSERT INTO cursors VALUES (?, ?) ON CONFLICT (stream) DO UPDATE SET offset = max(offset, excluded.offset)",
        (stream, offset),
    )
    return rows(connection, "SELECT json_array(offset) FROM cursors WHERE stream = ?", (stream,), tuple[int])[0]


def ban(connection: sqlite3.Connection, bans: Sequence[Ban], lifted: Sequence[Banned]) -> None:
    """Keeps bans, and lets go of others."""
    gone = [msgspec.structs.astuple(banned) for banned in [*(ban.banned for ban in bans), *lifted]]
    for one in gone:
        connection.execute("DELETE FROM bans WHERE user = ? AND device = ? AND network = ?", one)
    for ban in bans:
        values = (*msgspec.structs.astuple(ban.banned), ban.reason, ban.by, ban.made_ms, ban.ends_ms)
        connection.execute(_BAN, values)


_BAN = "INSERT INTO bans (user, device, network, reason, by, made_ms, ends_ms) VALUES (?, ?, ?, ?, ?, ?, ?)"
_ALL_BANS = """
    SELECT json_group_array(json_array(json_array(user, device, network), reason, by, made_ms, ends_ms))
    FROM (SELECT * FROM bans ORDER BY id)"""


def bans(connection: sqlite3.Connection) -> list[Ban]:
    """All that are kept."""
    return rows(connection, _ALL_BANS, (), list[Ban])


# ---------------------------------------------------------------- reading, and looking after the file


def spare_bytes(connection: sqlite3.Connection) -> int:
    """What the file holds of pages that trimming has freed."""
    pages, page_bytes = (connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("freelist_count", "page_size"))
    return int(pages * page_bytes)


def empty_wal(connection: sqlite3.Connection) -> None:
    """Moves all of the WAL into the file and gives its room back, if nobody reads; does not wait for who does."""
    (patience_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience_ms}")


def last_batch(connection: sqlite3.Connection) -> int:
    """The number of the last transaction."""
    return rows(connection, "SELECT json_array(batch) FROM meta", (), tuple[int])[0]


def next_ids(connection: sqlite3.Connection) -> Ids:
    """The first free ids."""
    after_last = ", ".join(f"ifnull((SELECT max(id) FROM {table}), 0) + 1" for table in ("streams", "pushes", "keys"))
    return Ids(*connection.execute(f"SELECT {after_last}").fetchone())


HEAD = "ifnull((SELECT max(offset) FROM records WHERE stream = s.id), s.floor)"
_STANDINGS = f"""
    SELECT json_group_array(json_array(j.key, s.id, s.floor, {HEAD}))
    FROM json_each(?) AS j CROSS JOIN streams AS s ON s.name = j.value"""


def standings(connection: sqlite3.Connection, streams: Sequence[str]) -> dict[str, StreamStanding]:
    """Where streams stand, also those that do not exist."""
    found = dict.fromkeys(streams, StreamStanding(0, 0, 0))
    for at, row, floor, head in rows(connection, _STANDINGS, (json.dumps(streams),), list[tuple[int, int, int, int]]):
        found[streams[at]] = StreamStanding(row, floor, head)
    return found


_KEYS = """
    SELECT json_group_array(json_array(j.key, hex(k.digest), k.time_ms, k.home_ms, json(k.offsets)))
    FROM json_each(?) AS j CROSS JOIN keys AS k ON k.push_id = j.value"""


def keys(connection: sqlite3.Connection, push_ids: Sequence[str]) -> dict[str, StoredKey]:
    """What is stored of publishers' keys, by push id."""
    found = rows(connection, _KEYS, (json.dumps(push_ids),), list[tuple[int, str, int, int, list[int]]])
    return {
        push_ids[at]: StoredKey(bytes.fromhex(digest), time_ms, home_ms, offsets)
        for at, digest, time_ms, home_ms, offsets in found
    }


def newest(connection: sqlite3.Connection, window: Window, most: int) -> list[tuple[str, int]]:
    """Ids and times of pushes, from the newest on."""
    found: list[tuple[str, int]] = []
    for push_id, time_ms in connection.execute("SELECT push_id, time_ms FROM pushes ORDER BY id DESC LIMIT ?", (most,)):
        if not window.has(time_ms):
            break
        found.append((push_id, time_ms))
    return found


_CURSORS = """
    SELECT json_group_array(json_array(j.key, c.offset)) FROM json_each(?) AS j
    CROSS JOIN streams AS s ON s.name = j.value CROSS JOIN cursors AS c ON c.stream = s.id"""


def cursors(connection: sqlite3.Connection, streams: Sequence[str]) -> dict[str, int]:
    """The streams' cursors; 0 where there is none."""
    found = dict.fromkeys(streams, 0)
    for at, offset in rows(connection, _CURSORS, (json.dumps(streams),), list[tuple[int, int]]):
        found[streams[at]] = offset
    return found


# The inner query measures without touching bodies (SQLite knows their length from the row's header); the outer one
# reads those that fit. One more than max_records is measured, to know whether more is there.
_READ = f"""
    WITH measured AS (
        SELECT r.offset, r.push, r.crc, r.only_for, row_number() OVER one_by_one AS place,
            sum(ifnull(length(p.body), 0) + {RECORD_BYTES}) OVER one_by_one AS size
        FROM records AS r LEFT JOIN pushes AS p ON p.id = r.push
        WHERE r.stream = :stream AND r.offset > :after AND r.offset <= :upto
            AND (p.id IS NULL OR p.expires_ms = 0 OR p.expires_ms > :now_ms)
        WINDOW one_by_one AS (ORDER BY r.offset ROWS UNBOUNDED PRECEDING)
        ORDER BY r.offset LIMIT :most + 1
    ), page AS (
        SELECT * FROM measured WHERE place = 1 OR (place <= :most AND size <= :max_bytes)
    )
    SELECT (SELECT floor FROM streams WHERE id = :stream), (SELECT max(offset) FROM records WHERE stream = :stream),
        (SELECT count(*) FROM measured),
        json_group_array(json_array(offset, p.push_id, p.op, p.time_ms, p.expires_ms, p.wall_ms, crc,
            length(p.body), only_for)),
        CAST(group_concat(p.body, '') AS BLOB)
    FROM (SELECT * FROM page ORDER BY offset) LEFT JOIN pushes AS p ON p.id = push"""


_Row = tuple[int, str | None, int | None, int | None, int | None, int | None, int, int | None, str | None]


def read(
    connection: sqlite3.Connection,
    epoch: str,
    stream: tuple[int, str],
    after: int,
    upto: int,
    max_records: int,
    max_bytes: int,
    now_ms: int,
) -> StreamPage:
    """A page of a stream, given by id and name. See Log.read."""
    most = max(1, min(max_records, max_bytes // RECORD_BYTES + 1))  # more would not fit
    wanted = {"stream": stream[0], "after": after, "upto": upto, "most": most}
    row = connection.execute(_READ, {**wanted, "max_bytes": max_bytes, "now_ms": now_ms}).fetchone()
    floor, head, measured, text, bodies = row
    if floor is None:
        return StreamPage(epoch, 0, 0, [], min(after, 0))
    head = floor if head is None else head
    records: list[Record] = []
    at = 0
    is_damaged = False
    for offset, push_id, op, time_ms, expires_ms, wall_ms, crc, size, only in parse_json(text, list[_Row]):
        where, is_damaged = f"{stream[1]}, offset {offset}", True
        if push_id is None or op is None or time_ms is None or expires_ms is None or size is None:
            if records:
                break
            raise Damaged(where, "its content is missing", offset)
        body = bodies[at : at + size]
        at += size
        content = content_checksum(push_id, op, time_ms, expires_ms, body)
        if record_checksum(content, stream[1], offset, only) != crc:
            if records:
                break
            raise Damaged(where, "its checksum does not fit", offset)
        is_damaged = False
        told_ms = wall_ms or time_ms  # an older zim had one clock
        for_whom = parse_json(only, tuple[str, ...]) if only else ()
        records.append(Record(offset, push_id, op, body, told_ms, for_whom, expires_ms))
    end = min(upto, head)
    is_cut = is_damaged or measured > len(records)
    return StreamPage(epoch, floor, head, records, records[-1].offset if is_cut else max(end, min(after, head)))

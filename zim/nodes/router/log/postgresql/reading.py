"""Statements that only read. Each also says whether the server knows the shard's newest commit that we know: one that
was deposed goes on answering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from zim.fabric.bans import Ban, Banned
from zim.nodes.router.log import RECORD_BYTES, Damaged, StreamPage
from zim.nodes.router.log.keys import StoredKey
from zim.nodes.router.log.postgresql.connecting import Connection
from zim.nodes.router.log.postgresql.failures import StaleServerError
from zim.nodes.router.log.postgresql.packing import blobs, texts, unpack_id
from zim.nodes.router.log.postgresql.planning import NextIds, content_crc, record_crc, stored_key
from zim.nodes.router.log.postgresql.schema import ID_BITS, TAKE
from zim.nodes.router.log.standings import StreamStanding
from zim.nodes.router.log.window import Window
from zim.protocol.messages import Record

_NEWEST_AT_ONCE = 500
_TAKES_AT_MOST = 100


class Seen(NamedTuple):
    """What a reader knows. shard: its number. number: of its newest position that is known."""

    shard: int
    number: int


def _fresh(select: str) -> bytes:
    return f"""
        SELECT fresh.is_so, found.* FROM (
            SELECT EXISTS (SELECT 1 FROM positions WHERE shard = %(shard)s AND number >= %(number)s) AS is_so
        ) AS fresh LEFT JOIN LATERAL ({select}) AS found ON true""".encode()


def _rows(connection: Connection, seen: Seen, select: bytes, **values: Any) -> list[Any]:
    """Rows of a statement that `_fresh` has made; their first column is no NULL."""
    values |= {"shard": seen.shard, "number": seen.number}
    rows = connection.execute(select, values, prepare=True, binary=True).fetchall()
    if not rows[0][0]:
        raise StaleServerError("this server does not know what was committed last")
    return [row[1:] for row in rows if row[1] is not None]


HEAD = """coalesce((
    SELECT r."offset" FROM records AS r WHERE r.stream = s.id ORDER BY r."offset" DESC LIMIT 1
), s.floor)"""
_STANDINGS = _fresh(f"""
    SELECT s.name, s.id, s.floor, {HEAD}, s.epoch FROM unnest(%(names)s) AS n(name)
    CROSS JOIN LATERAL (SELECT * FROM streams WHERE streams.name = n.name OFFSET 0) AS s""")


def standings(connection: Connection, seen: Seen, streams: Sequence[str]) -> dict[str, StreamStanding]:
    """Where streams stand, also those that do not exist."""
    found = dict.fromkeys(streams, StreamStanding(0, 0, 0))
    for name, *standing in _rows(connection, seen, _STANDINGS, names=texts(streams)):
        found[name] = StreamStanding(*standing)
    return found


_KEYS = _fresh("""
    SELECT k, there.digest, there.time_ms, there.home_ms, there.offsets FROM unnest(%(keys)s) AS k
    CROSS JOIN LATERAL (SELECT * FROM keys WHERE keys.key = k OFFSET 0) AS there""")


def keys(connection: Connection, seen: Seen, key_ids: Sequence[str]) -> dict[str, StoredKey]:
    """What is stored of publishers' keys, by key id."""
    asked = {stored_key(seen.shard, key_id): key_id for key_id in key_ids}
    rows = _rows(connection, seen, _KEYS, keys=blobs(list(asked)))
    return {
        asked[key]: StoredKey(digest, time_ms, home_ms, msgspec.json.decode(offsets, type=list[int]))
        for key, digest, time_ms, home_ms, offsets in rows
    }


_TAKES = _fresh(f"""
    SELECT time_ms FROM positions WHERE positions.shard = %(shard)s AND kind = {TAKE} ORDER BY positions.number DESC
    LIMIT {_TAKES_AT_MOST}""")


_NEWEST = _fresh("""
    SELECT DISTINCT ON (push) push, push_id, time_ms FROM records WHERE push >= %(least)s AND push < %(below)s
    ORDER BY push DESC LIMIT %(most)s""")


def newest(connection: Connection, seen: Seen, upto_ms: int, for_ms: int, most: int) -> list[tuple[str, int]]:
    """Ids and times of pushes, from the newest on."""
    window = Window(upto_ms, for_ms, [time_ms for (time_ms,) in _rows(connection, seen, _TAKES)])
    least, below = seen.shard << ID_BITS, (seen.shard + 1) << ID_BITS
    found: list[tuple[str, int]] = []
    at_once = _NEWEST_AT_ONCE
    while len(found) < most:
        count = min(at_once, most - len(found))
        rows = _rows(connection, seen, _NEWEST, least=least, below=below, most=count)
        for push, push_id, time_ms in rows:
            if not window.has(time_ms):
                return found
            below = push
            found.append((unpack_id(push_id), time_ms))
        if len(rows) < count:
            break
        at_once *= 4
    return found


_CURSORS = _fresh("""
    SELECT n.name, c."offset" FROM unnest(%(names)s) AS n(name)
    CROSS JOIN LATERAL (SELECT id FROM streams WHERE streams.name = n.name OFFSET 0) AS s
    CROSS JOIN LATERAL (SELECT "offset" FROM cursors WHERE cursors.stream = s.id OFFSET 0) AS c""")


def cursors(connection: Connection, seen: Seen, streams: Sequence[str]) -> dict[str, int]:
    """The streams' cursors; 0 where there is none."""
    found = dict.fromkeys(streams, 0)
    found.update(_rows(connection, seen, _CURSORS, names=texts(streams)))
    return found


_BANS = _fresh("""
    SELECT id, "user", device, network, reason, by, made_ms, ends_ms FROM bans WHERE bans.shard = %(shard)s
    ORDER BY id""")


def bans(connection: Connection, seen: Seen) -> list[Ban]:
    """All that are kept, in the order in which they came."""
    rows = _rows(connection, seen, _BANS)
    return [Ban(Banned(*row[1:4]), *row[4:]) for row in rows]


_IDS = b"""
    SELECT s.term, s.epoch, s.history,
        coalesce((SELECT max(id) FROM streams WHERE id >= %(least)s AND id < %(below)s), %(least)s),
        coalesce((SELECT max(push) FROM records WHERE push >= %(least)s AND push < %(below)s), %(least)s),
        coalesce((SELECT max(keys.number) FROM keys WHERE keys.number >= %(least)s AND keys.number < %(below)s),
            %(least)s)
    FROM shards AS s WHERE s.shard = %(shard)s"""


class ShardRow(NamedTuple):
    """What a shard goes on from. epoch: of streams without one of their own; history: how often it lost commits."""

    term: int
    epoch: str
    history: int
    free: NextIds


def shard_row(connection: Connection, shard: int) -> ShardRow:
    """What a shard goes on from."""
    below = (shard + 1) << ID_BITS
    values = {"shard": shard, "least": shard << ID_BITS, "below": below}
    ((term, epoch, history, *last),) = connection.execute(_IDS, values).fetchall()
    return ShardRow(term, epoch, history, NextIds(*(at + 1 for at in last)))


# Measures without touching bodies; one row more than fits comes along, without its body, to tell that there is one.
_SIZE = """coalesce(octet_length(r.body), (SELECT octet_length(b.body) FROM bodies AS b WHERE b.push = r.push), 0)"""
_READ = _fresh(f"""
    SELECT s.floor, s.head, s.epoch, p.* FROM (
        SELECT s.id, s.floor, {HEAD} AS head, s.epoch FROM streams AS s WHERE s.id = %(stream)s
    ) AS s LEFT JOIN LATERAL (
        SELECT m."offset", m.push_id, m.op, m.time_ms, m.expires_ms, m.wall_ms, m.crc, m.only_for, m.fits,
            CASE WHEN m.fits THEN coalesce(m.body, (SELECT b.body FROM bodies AS b WHERE b.push = m.push)) END
        FROM (
            SELECT measured.*, place = 1 OR (place <= %(most)s AND total <= %(max_bytes)s) AS fits FROM (
                SELECT r.*, row_number() OVER in_order AS place, sum({_SIZE} + {RECORD_BYTES}) OVER in_order AS total,
                    {_SIZE} + {RECORD_BYTES} AS size
                FROM records AS r
                WHERE r.stream = s.id AND r."offset" > %(after)s AND r."offset" <= %(upto)s
                    AND (r.expires_ms = 0 OR r.expires_ms > %(now_ms)s)
                WINDOW in_order AS (ORDER BY r."offset" ROWS UNBOUNDED PRECEDING)
                ORDER BY r."offset" LIMIT %(most)s + 1
            ) AS measured WHERE place <= 2 OR total - size <= %(max_bytes)s
        ) AS m ORDER BY m."offset"
    ) AS p ON true""")


def read(
    connection: Connection,
    seen: Seen,
    stream: tuple[int, str],
    after: int,
    upto: int,
    max_records: int,
    max_bytes: int,
    now_ms: int,
) -> tuple[StreamPage, str]:
    """A page of a stream, given by id and name, and its epoch apart. See Log.read."""
    most = max(1, min(max_records, max_bytes // RECORD_BYTES + 1))  # more would not fit
    wanted = {"stream": stream[0], "after": after, "upto": upto, "most": most, "max_bytes": max_bytes}
    rows = _rows(connection, seen, _READ, **wanted, now_ms=now_ms)
    if not rows:
        return StreamPage("", 0, 0, [], min(after, 0)), ""
    floor, head, epoch = rows[0][:3]
    records: list[Record] = []
    is_cut = False
    for _, _, _, offset, push_id, op, time_ms, expires_ms, wall_ms, crc, only, fits, body in rows:
        if offset is None:
            break
        if not fits:
            is_cut = True
            break
        where = f"{stream[1]}, offset {offset}"
        problem = _problem(stream[1], offset, push_id, op, time_ms, expires_ms, body, only, crc)
        if problem and not records:
            raise Damaged(where, problem, offset)
        if problem:
            is_cut = True
            break
        told_ms = wall_ms or time_ms
        for_whom = msgspec.json.decode(only, type=tuple[str, ...]) if only else ()
        records.append(Record(offset, unpack_id(push_id), op, body, told_ms, for_whom, expires_ms))
    end = min(upto, head)
    return StreamPage("", floor, head, records, records[-1].offset if is_cut else max(end, min(after, head))), epoch


def _problem(
    stream: str,
    offset: int,
    push_id: bytes,
    op: int,
    time_ms: int,
    expires_ms: int,
    body: bytes | None,
    only: str,
    crc: int,
) -> str:
    """What is wrong with a record; "" for nothing."""
    if body is None:
        return "its content is missing"
    if record_crc(content_crc(push_id, op, time_ms, expires_ms, body), stream, offset, only) != crc:
        return "its checksum does not fit"
    return ""

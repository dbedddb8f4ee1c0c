"""Logs of routers that stand still → this log. May be broken off and begun again: what is there is passed over.

Ids are made from those of the source, so a second attempt makes the same. A stream's own row is written with the last
of its records: until then the stream is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from zim.errors import NodeError
from zim.fabric.bans import Ban, Banned
from zim.fabric.sharding import Shards
from zim.nodes.router.log import Damaged
from zim.nodes.router.log.copying import (
    CopyReport,
    HomedKey,
    Progress,
    SourceKey,
    SourceLog,
    SourceRecord,
    SourceStream,
    homed,
)
from zim.nodes.router.log.postgresql import schema
from zim.nodes.router.log.postgresql.connecting import Connection, PostgresServer, ServerLine
from zim.nodes.router.log.postgresql.packing import blobs, pack_id, texts, unpack_id, wholes
from zim.nodes.router.log.postgresql.planning import content_crc, record_crc, stored_key
from zim.nodes.router.log.postgresql.schema import ID_BITS, MARK
from zim.nodes.router.log.shared import WhereShared

T = TypeVar("T")

STREAMS_AT_ONCE = 500
RECORDS_AT_ONCE = 5_000
KEYS_AT_ONCE = 2_000
MOST_PARTS = 4_096  # of a push, that have keys of their own: two million streams of one shard
LIMIT_S = 600.0  # of one statement

_RECORDS = """
    INSERT INTO records (stream, "offset", push, time_ms, expires_ms, wall_ms, op, crc, push_id, only_for, body)
    SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s::int[], %s, %s, %s, %s) ON CONFLICT DO NOTHING"""
_BODIES = "INSERT INTO bodies (push, body) SELECT * FROM unnest(%s, %s) ON CONFLICT DO NOTHING"
_STREAMS = "INSERT INTO streams (id, floor, name, epoch) SELECT * FROM unnest(%s, %s, %s, %s) ON CONFLICT DO NOTHING"
_CURSORS = 'INSERT INTO cursors (stream, "offset") SELECT * FROM unnest(%s, %s) ON CONFLICT DO NOTHING'
_KEYS = """
    INSERT INTO keys (number, time_ms, home_ms, key, digest, offsets)
    SELECT * FROM unnest(%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""
_BAN = """
    INSERT INTO bans (shard, "user", device, network, reason, by, made_ms, ends_ms)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""
_BACK = """
    SELECT r."offset", r.push_id, r.op, r.time_ms, r.expires_ms, r.wall_ms, r.only_for,
        coalesce(r.body, (SELECT b.body FROM bodies AS b WHERE b.push = r.push))
    FROM records AS r WHERE r.stream = %s AND r."offset" > %s AND r."offset" <= %s ORDER BY r."offset" """
_STANDS = """
    SELECT s.floor, s.epoch, coalesce((SELECT max("offset") FROM records WHERE stream = s.id), s.floor),
        coalesce((SELECT "offset" FROM cursors WHERE stream = s.id), 0), s.name
    FROM streams AS s WHERE s.id = %s"""


class _Stamp:
    """Ids in the copy."""

    def __init__(self, sources: int, shards: Sequence[str]) -> None:
        self._sources = sources
        self.shards = Shards(shards)
        self.numbers = {name: number for number, name in enumerate(shards, 1)}

    def id(self, shard: str, source: int, number: int) -> int:
        """Of what has a number in a source, which is given by its place."""
        return (self.numbers[shard] << ID_BITS) + number * self._sources + source + 1


def copy(place: WhereShared, fabric: str, sources: Sequence[SourceLog], what: str, progress: Progress) -> CopyReport:
    """Copies logs into an empty log, or goes on where the same copy was broken off. Switches.

    Args:
        sources: the logs of all routers.
        what: names the sources, so that nothing else is put on top of them.

    Raises:
        NodeError: the log is not made, or not empty, or has half of another copy. Unavailable, Unknown: the engine
            fails; the copy can be begun again. Damaged: a source is.
    """
    line = ServerLine(PostgresServer(place, name="zim log copy"), LIMIT_S)
    try:
        return _Copy(line, place, sources, progress).run(fabric, what)
    finally:
        line.close()


class _Copy:
    def __init__(self, line: ServerLine, place: WhereShared, sources: Sequence[SourceLog], progress: Progress) -> None:
        self._line, self._place, self._sources, self._progress = line, place, sources, progress
        self._stamp = _Stamp(len(sources), place.names)
        self._total = sum(source.records for source in sources)
        self._done = 0

    def _write(self, job: Callable[[Connection], T]) -> T:
        return self._line.write(job)

    def run(self, fabric: str, what: str) -> CopyReport:
        self._write(lambda c: _begin(c, fabric, len(self._place.names), what))
        streams = copied = skipped = keys = 0
        for at, source in enumerate(self._sources):
            for page in self._pages(source):
                records, old = self._copy_streams(at, source, page)
                streams, copied, skipped = streams + len(page), copied + records, skipped + old
        for at in range(len(self._sources)):
            keys += self._copy_keys(at)
        bans = self._copy_bans()
        self._write(self._begin_shards)
        self._verify()
        self._write(lambda c: c.execute("UPDATE meta SET copying = ''"))
        return CopyReport(streams, copied, skipped, keys, bans)

    def _pages(self, source: SourceLog) -> Iterator[list[SourceStream]]:
        after = 0
        while page := source.streams(after, STREAMS_AT_ONCE):
            yield page
            after = page[-1].id

    # -- streams

    def _copy_streams(self, at: int, source: SourceLog, page: Sequence[SourceStream]) -> tuple[int, int]:
        """Returns how many records were copied, and how many had been before."""
        ids = [self._stamp.id(self._stamp.shards.of(stream.name), at, stream.id) for stream in page]
        there = self._line.read(lambda c: _existing(c, ids))
        copied = skipped = 0
        waiting: list[tuple[int, SourceStream]] = []  # whose records are all written, or in rows
        rows: list[tuple[int, SourceStream, SourceRecord]] = []
        for number, stream in zip(ids, page, strict=True):
            if number in there:
                skipped += stream.head - stream.floor
                continue
            after = stream.floor
            while after < stream.head and (found := source.read(stream, after, RECORDS_AT_ONCE)):
                after = found[-1].offset
                rows += [(number, stream, record) for record in found]
                if len(rows) >= RECORDS_AT_ONCE:
                    copied += self._flush(at, source, rows, waiting)
                    rows, waiting = [], []
            waiting.append((number, stream))
        copied += self._flush(at, source, rows, waiting)
        self._done += skipped
        self._progress("records", self._done, self._total)
        return copied, skipped

    def _flush(
        self,
        at: int,
        source: SourceLog,
        rows: Sequence[tuple[int, SourceStream, SourceRecord]],
        complete: Sequence[tuple[int, SourceStream]],
    ) -> int:
        self._write(lambda c: self._put(c, at, source, rows, complete))
        self._done += len(rows)
        self._progress("records", self._done, self._total)
        return len(rows)

    def _put(
        self,
        c: Connection,
        at: int,
        source: SourceLog,
        rows: Sequence[tuple[int, SourceStream, SourceRecord]],
        complete: Sequence[tuple[int, SourceStream]],
    ) -> None:
        columns: list[list[int]] = [[] for _ in range(8)]
        push_ids: list[bytes] = []
        bodies: list[bytes | None] = []
        shared: dict[int, bytes] = {}
        for number, stream, r in rows:
            push = self._stamp.id(self._stamp.shards.of(stream.name), at, r.push)
            packed = pack_id(r.push_id)
            content = content_crc(packed, r.op, r.time_ms, r.expires_ms, r.body)
            crc = record_crc(content, stream.name, r.offset, r.only)
            row = (number, r.offset, push, r.time_ms, r.expires_ms, r.wall_ms, r.op, crc)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
            push_ids.append(packed)
            bodies.append(None if r.is_shared else r.body)
            if r.is_shared:
                shared[push] = r.body
        with c.transaction():
            if rows:
                only = texts([r.only for _, _, r in rows])
                c.execute(_RECORDS, (*map(wholes, columns), blobs(push_ids), only, blobs(bodies)))
            if shared:
                c.execute(_BODIES, (wholes(list(shared)), blobs(list(shared.values()))))
            if complete:
                numbers = wholes([number for number, _ in complete])
                floors, names = wholes([s.floor for _, s in complete]), texts([s.name for _, s in complete])
                c.execute(_STREAMS, (numbers, floors, names, texts([source.epoch] * len(complete))))
                told = [(number, stream.cursor) for number, stream in complete if stream.cursor]
                c.execute(_CURSORS, (wholes([n for n, _ in told]), wholes([cursor for _, cursor in told])))

    # -- keys, bans, numbers

    def _copy_keys(self, at: int) -> int:
        """Those that no source before has, with what all sources have of them."""
        copied, after = 0, 0
        while page := self._sources[at].keys(after, KEYS_AT_ONCE):
            after = page[-1].id
            rows = [(key, one) for key in page for one in self._homed(at, key)]
            self._write(lambda c, rows=rows: self._put_keys(c, at, rows))  # type: ignore[misc]
            copied += len(rows)
            self._progress("keys", copied, 0)
        return copied

    def _homed(self, at: int, key: SourceKey) -> list[HomedKey]:
        if key.key_id != key.push_id and self._sources[at].key(key.push_id) is not None:
            return []  # it is told with the first part
        if any(source.key(key.push_id) is not None for source in self._sources[:at]):
            return []
        found: list[SourceKey] = []
        for source in self._sources:
            part = 0
            while one := source.key(f"{key.push_id}.{part}" if part else key.push_id):
                found.append(one)
                part += 1
        return homed(found or [key], self._stamp.shards)

    def _put_keys(self, c: Connection, at: int, rows: Sequence[tuple[SourceKey, HomedKey]]) -> None:
        numbers = self._stamp.numbers
        seen: dict[bytes, tuple[int, HomedKey]] = {}
        for key, one in rows:
            stored = stored_key(numbers[one.shard], one.key_id)
            part = 0 if one.key_id == key.push_id else int(one.key_id.rpartition(".")[2])
            seen.setdefault(
                stored, (self._stamp.id(one.shard, at, key.id * MOST_PARTS + min(part, MOST_PARTS - 1)), one)
            )
        homed_keys = [one for _, one in seen.values()]
        c.execute(
            _KEYS,
            (
                wholes([number for number, _ in seen.values()]),
                wholes([one.time_ms for one in homed_keys]),
                wholes([one.home_ms for one in homed_keys]),
                blobs(list(seen)),
                blobs([one.digest for one in homed_keys]),
                texts([str(one.offsets) for one in homed_keys]),
            ),
        )

    def _copy_bans(self) -> int:
        """A user's where the user's stream is, a network's everywhere. Of several about the same the newest counts."""
        newest: dict[Banned, Ban] = {}
        for ban in (ban for source in self._sources for ban in source.bans()):
            if ban.banned not in newest or newest[ban.banned].made_ms < ban.made_ms:
                newest[ban.banned] = ban

        def job(c: Connection) -> None:
            with c.transaction():
                for ban in sorted(newest.values(), key=lambda one: one.made_ms):
                    shards = [self._stamp.shards.of(ban.banned.stream)] if ban.banned.user else self._place.names
                    for shard in shards:
                        who = msgspec.structs.astuple(ban.banned)
                        values = (*who, ban.reason, ban.by, ban.made_ms, ban.ends_ms)
                        c.execute(_BAN, (self._stamp.numbers[shard], *values))

        self._write(job)
        return len(newest)

    def _begin_shards(self, c: Connection) -> None:
        """Log time goes on from the newest there is, and session numbers start above all."""
        time_ms = max((source.time_ms for source in self._sources), default=0)
        next_seq = max((source.next_seq for source in self._sources), default=1)
        with c.transaction():
            for number in self._stamp.numbers.values():
                c.execute(
                    "INSERT INTO positions (shard, number, term, time_ms, kind) VALUES (%s, 1, 0, %s, %s)"
                    " ON CONFLICT DO NOTHING",
                    (number, time_ms, MARK),
                )
            for source in self._sources:  # as if each had beaten once more, and gone: a start looks there for the time
                c.execute(
                    "INSERT INTO routers (router, run, number, time_ms, comets, is_dead) VALUES (%s, 0, 0, %s, 0, true)"
                    " ON CONFLICT DO NOTHING",
                    (source.name, time_ms),
                )
            c.execute("UPDATE shards SET next_seq = greatest(next_seq, %s)", (next_seq,))

    # -- is it all there

    def _verify(self) -> None:
        """Reads everything back, and compares it with the sources.

        Raises:
            Damaged: something differs.
        """
        done = 0
        for at, source in enumerate(self._sources):
            for page in self._pages(source):
                for stream in page:
                    self._verify_stream(at, source, stream)
                    done += stream.head - stream.floor
                self._progress("verified", done, self._total)
            after = 0
            while keys := source.keys(after, KEYS_AT_ONCE):
                after = keys[-1].id
                self._verify_keys(keys)

    def _verify_stream(self, at: int, source: SourceLog, stream: SourceStream) -> None:
        number = self._stamp.id(self._stamp.shards.of(stream.name), at, stream.id)
        row = self._line.read(lambda c: c.execute(_STANDS, (number,)).fetchone())
        if row != (stream.floor, source.epoch, stream.head, stream.cursor, stream.name):
            raise Damaged(f"the copy of {stream.name}", "it stands elsewhere than the original")
        after = stream.floor
        while after < stream.head:
            there = source.read(stream, after, RECORDS_AT_ONCE)
            last = there[-1].offset if there else stream.head
            span = (number, after, last)
            here = self._line.read(lambda c, span=span: c.execute(_BACK, span, binary=True).fetchall())  # type: ignore[misc]
            told = [(r.offset, r.push_id, r.op, r.time_ms, r.expires_ms, r.wall_ms, r.only, r.body) for r in there]
            if told != [(offset, unpack_id(push_id), *rest) for offset, push_id, *rest in here]:
                raise Damaged(f"the copy of {stream.name}", f"it differs between the offsets {after} and {last}")
            after = last

    def _verify_keys(self, keys: Sequence[SourceKey]) -> None:
        """Each is known at its home."""
        homes = [self._stamp.numbers[self._stamp.shards.home(key.push_id)] for key in keys]
        wanted = {stored_key(home, key.push_id) for home, key in zip(homes, keys, strict=True)}
        asked = blobs(list(wanted))
        row = self._line.read(
            lambda c: c.execute("SELECT count(*) FROM keys WHERE key = ANY (%s)", (asked,)).fetchone()
        )
        if row is None or row[0] != len(wanted):
            raise Damaged("the copy", "keys of publishers are missing in it")


def _existing(c: Connection, ids: Sequence[int]) -> set[int]:
    return {number for (number,) in c.execute("SELECT id FROM streams WHERE id = ANY (%s)", (wholes(ids),))}


def _begin(c: Connection, fabric: str, shards: int, what: str) -> None:
    there = schema.look(c)
    schema.check(there, fabric, shards, may_be_copying=True)
    assert there is not None
    if not c.execute("SELECT pg_try_advisory_lock(1819044219)").fetchone() == (True,):
        raise NodeError("another zim log copy into this log is under way")
    if there.copying == what:
        return
    if there.copying:
        raise NodeError(f"the log has half a copy of {there.copying}: go on with that one, or make a new log")
    (has_any,) = c.execute(
        "SELECT EXISTS (SELECT 1 FROM streams) OR EXISTS (SELECT 1 FROM keys) OR EXISTS (SELECT 1 FROM positions)"
    ).fetchone() or (True,)
    if has_any:
        raise NodeError("the log is not empty: routers have written to it, or a copy was made before")
    c.execute("UPDATE meta SET copying = %s", (what,))

"""Which records may go, and letting them go: a look at some streams, then one small transaction after another.

Rows are deleted, not dropped by partition: how long a record stays depends on its stream's count, not on its time
alone. What deletes leave is used again once VACUUM has been there: see `vacuuming`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from zim.fabric.retention import Retention
from zim.nodes.router.log import Lease
from zim.nodes.router.log.postgresql.connecting import Connection
from zim.nodes.router.log.postgresql.packing import texts, wholes
from zim.nodes.router.log.postgresql.reading import HEAD
from zim.nodes.router.log.postgresql.schema import APPEND, ID_BITS, MARK
from zim.nodes.router.log.postgresql.small_writes import hold
from zim.nodes.router.log.sweeping import SWEPT_AT_ONCE, Sweep

COUNTED = 10_000  # records of one stream that are counted as too old in one look
POSITIONS_KEPT = 1_000  # of a shard: for who wants to know what became of a commit before a takeover


def _rows(connection: Connection, statement: bytes, **values: Any) -> list[Any]:
    return connection.execute(statement, values, prepare=True, binary=True).fetchall()


_SWEEP = f"""
    SELECT w.id, w.name, w.floor, w.head, (
        SELECT r.time_ms FROM records AS r WHERE r.stream = w.id ORDER BY r."offset" LIMIT 1
    ) FROM (
        SELECT s.id, s.name, s.floor, {HEAD} AS head FROM streams AS s
        WHERE s.id > %(after)s AND s.id < %(below)s ORDER BY s.id LIMIT %(most)s
    ) AS w ORDER BY w.id""".encode()
_OLD = f"""
    SELECT n.id, (SELECT count(*) FROM (
        SELECT 1 FROM records AS r WHERE r.stream = n.id AND r."offset" > n.floor AND r.time_ms < n.kept_ms
        ORDER BY r."offset" LIMIT {COUNTED}
    ) AS old) FROM unnest(%(ids)s, %(floors)s, %(kept)s) AS n(id, floor, kept_ms)""".encode()
_LIMITS = f"""
    SELECT due.name, due.id, due.floor, coalesce((
        SELECT r."offset" - 1 FROM records AS r
        WHERE r.stream = due.id AND r."offset" > due.floor AND r."offset" <= due.floor + %(most)s
            AND (r.time_ms >= %(before_ms)s OR (r."offset" > due.head - due.count AND r.time_ms >= due.kept_ms))
        ORDER BY r."offset" LIMIT 1
    ), least(due.head, due.floor + %(most)s)) FROM (
        SELECT n.name, s.id, s.floor, {HEAD} AS head, n.count, n.kept_ms
        FROM unnest(%(names)s, %(counts)s, %(kept)s) WITH ORDINALITY AS n(name, count, kept_ms, place)
        CROSS JOIN LATERAL (SELECT * FROM streams WHERE streams.name = n.name OFFSET 0) AS s ORDER BY n.place
    ) AS due""".encode()
_OLD_KEYS = b"""
    SELECT coalesce(max(number), 0), count(*) FROM (
        SELECT number, time_ms FROM keys WHERE number >= %(least)s AND number < %(below)s
        ORDER BY number LIMIT %(most)s
    ) AS first WHERE time_ms <= %(keys_ms)s"""
_KEYS_LEFT = b"""
    SELECT count(*) FROM (
        SELECT 1 FROM keys WHERE number >= %(least)s AND number < %(below)s AND time_ms <= %(keys_ms)s LIMIT 100000
    ) AS old"""
_DELETE = b"""
    DELETE FROM records AS r USING unnest(%(ids)s, %(floors)s, %(uptos)s) AS n(id, floor, upto)
    WHERE r.stream = n.id AND r."offset" > n.floor AND r."offset" <= n.upto
    RETURNING CASE WHEN r.body IS NULL THEN r.push END"""
_RAISE = f"""
    UPDATE streams AS s SET floor = n.upto FROM unnest(%(ids)s, %(uptos)s) AS n(id, upto) WHERE s.id = n.id
    RETURNING s.name, s.id, s.floor, {HEAD}, s.epoch""".encode()
_BODIES = b"""
    DELETE FROM bodies AS b USING unnest(%(pushes)s) AS n(push)
    WHERE b.push = n.push AND (SELECT r.push FROM records AS r WHERE r.push = n.push LIMIT 1) IS NULL"""
_DELETE_KEYS = b"DELETE FROM keys WHERE number >= %(least)s AND number <= %(upto)s AND time_ms <= %(keys_ms)s"
_POSITIONS = f"""
    DELETE FROM positions WHERE shard = %(shard)s AND number <= %(upto)s AND kind IN ({APPEND}, {MARK})""".encode()


class Gone(NamedTuple):
    """What may go, as a look has found it.

    Attributes:
        raised: of each stream its id, floor and new floor.
        records: how many.
        rest: streams that have more, by name, and how many of theirs these are.
        keys: how many have ended, key: the last of them, and keys_ms: the time up to which they have.
    """

    raised: list[tuple[int, int, int]]
    records: int
    rest: dict[str, int]
    keys: int
    key: int
    keys_ms: int


@dataclass(slots=True, kw_only=True)
class ShardSweep(Sweep):
    """That of a shard. shard: its number."""

    shard: int

    def step(self, connection: Connection, retention: Retention, now_ms: int, before_ms: int) -> None:
        """Looks at some streams. Switches."""
        if not self.at:
            self.started_ms = now_ms
            self.at = self.shard << ID_BITS
        below = (self.shard + 1) << ID_BITS
        found = _rows(connection, _SWEEP, after=self.at, below=below, most=SWEPT_AT_ONCE)
        old: dict[int, tuple[str, int, int]] = {}
        for stream, name, floor, head, oldest_ms in found:
            if oldest_ms is None or oldest_ms >= before_ms:
                continue
            rule = retention.rule(name)
            if head - floor > rule.count:
                self.due[name] = head - floor - rule.count
            kept_ms = kept_from(rule.age_s, now_ms)
            if oldest_ms < kept_ms:
                old[stream] = name, floor, kept_ms
        if old:
            _, floors, kept = zip(*old.values(), strict=True)
            for stream, count in _rows(
                connection, _OLD, ids=wholes(list(old)), floors=wholes(floors), kept=wholes(kept)
            ):
                name = old[stream][0]
                self.due[name] = max(1, count, self.due.get(name, 0))
        self.at = found[-1][0] if len(found) == SWEPT_AT_ONCE else 0


def kept_from(age_s: float, now_ms: int) -> int:
    """What is older is too old."""
    return now_ms - int(age_s * 1000)


class Limits(NamedTuple):
    """What a look goes by.

    Attributes:
        now_ms: log time.
        before_ms: only records older than this may go.
        keys_ms: and keys up to this.
        most: of each.
    """

    retention: Retention
    now_ms: int
    before_ms: int
    keys_ms: int
    most: int


def look(connection: Connection, shard: int, names: Mapping[str, int], limits: Limits) -> Gone:
    """What may go of some streams, and of keys. Switches."""
    retention, now_ms, before_ms, keys_ms, most = limits
    raised: list[tuple[int, int, int]] = []
    rest: dict[str, int] = {}
    left = most
    rules = [retention.rule(name) for name in names]
    found = _rows(
        connection,
        _LIMITS,
        names=texts(names),
        counts=wholes([rule.count for rule in rules]),
        kept=wholes([kept_from(rule.age_s, now_ms) for rule in rules]),
        before_ms=before_ms,
        most=most,
    )
    for name, stream, floor, upto in found:
        count = min(upto - floor, left)
        if count > 0:
            raised.append((stream, floor, floor + count))
            left -= count
        if count < upto - floor or count == most:
            rest[name] = count
    least, below = shard << ID_BITS, (shard + 1) << ID_BITS
    ((key, keys),) = _rows(connection, _OLD_KEYS, least=least, below=below, most=most, keys_ms=keys_ms)
    return Gone(raised, most - left, rest, keys, key, keys_ms)


def let_go(connection: Connection, lease: Lease, shard: int, found: Gone) -> list[Any]:
    """Does it, in a transaction. Switches.

    Returns:
        Name, id, floor, head and epoch of each stream that has a new floor.

    Raises:
        Fenced: the shard is another's.
    """
    with connection.transaction():
        hold(connection, lease, shard)
        if found.keys:
            values = {"least": shard << ID_BITS, "upto": found.key, "keys_ms": found.keys_ms}
            connection.execute(_DELETE_KEYS, values, prepare=True)
        if not found.raised:
            return []
        ids, floors, uptos = map(wholes, zip(*found.raised, strict=True))
        gone = _rows(connection, _DELETE, ids=ids, floors=floors, uptos=uptos)
        shared = sorted({push for (push,) in gone if push is not None})
        if shared:
            connection.execute(_BODIES, {"pushes": wholes(shared)}, prepare=True)
        return _rows(connection, _RAISE, ids=ids, uptos=uptos)


def count_old_keys(connection: Connection, shard: int, keys_ms: int) -> int:
    """About how many keys are from up to then. Switches."""
    least, below = shard << ID_BITS, (shard + 1) << ID_BITS
    ((count,),) = _rows(connection, _KEYS_LEFT, least=least, below=below, keys_ms=keys_ms)
    return int(count)


def drop_positions(connection: Connection, shard: int, newest: int) -> None:
    """Lets go of positions that nobody will ask for. Takeovers and what was voided stay."""
    connection.execute(_POSITIONS, {"shard": shard, "upto": newest - POSITIONS_KEPT}, prepare=True)

"""Which records may go, and letting them go: a look at some streams, then one small transaction after another.

Streams over their count are known from the appends. A slow sweep over all of them finds what is too old. How much goes
at once is in proportion to what appends write: so trimming is faster than any of them, and its steps are no longer.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from zim.fabric.retention import Retention, Rule
from zim.nodes.router.log.sqlite.tables import HEAD, rows
from zim.nodes.router.log.sweeping import SWEPT_AT_ONCE, Sweep

_SWEEP = f"""
    SELECT json_group_array(json_array(id, name, floor, head, (
        SELECT p.time_ms FROM records AS r JOIN pushes AS p ON p.id = r.push WHERE r.stream = swept.id
        ORDER BY r.offset LIMIT 1
    ))) FROM (
        SELECT s.id, s.name, s.floor, {HEAD} AS head FROM streams AS s WHERE id > ? ORDER BY id LIMIT ?
    ) AS swept"""

# A stream's records go from its oldest up to the one before the first that has to stay. What has lost its push (damage)
# goes with its neighbours.
_LIMITS = f"""
    SELECT json_group_array(json_array(at, id, floor, ifnull((
        SELECT r.offset - 1 FROM records AS r LEFT JOIN pushes AS p ON p.id = r.push
        WHERE r.stream = due.id AND r.offset > due.floor AND r.offset <= due.floor + :most
            AND (p.time_ms >= :before_ms OR (r.offset > due.head - due.count AND p.time_ms >= due.age_ms))
        ORDER BY r.offset LIMIT 1
    ), min(head, floor + :most)))) FROM (
        SELECT j.key AS at, s.id, s.floor, {HEAD} AS head, json_extract(j.value, '$[1]') AS count,
            json_extract(j.value, '$[2]') AS age_ms
        FROM json_each(:due) AS j CROSS JOIN streams AS s ON s.name = json_extract(j.value, '$[0]')
    ) AS due"""

_DELETE = """
    DELETE FROM records WHERE (stream, offset) IN (
        SELECT r.stream, r.offset FROM json_each(?) AS j CROSS JOIN records AS r
        ON r.stream = json_extract(j.value, '$[0]') AND r.offset <= json_extract(j.value, '$[1]')
    )"""
_RAISE = """
    UPDATE streams SET floor = json_extract(j.value, '$[1]') FROM json_each(?) AS j
    WHERE streams.id = json_extract(j.value, '$[0]')"""
_NAMES = f"""
    SELECT json_group_array(json_array(s.name, s.id, s.floor, {HEAD}))
    FROM json_each(?) AS j CROSS JOIN streams AS s ON s.id = json_extract(j.value, '$[0]')"""
# Keys stand in the order in which they were made.
_OLD_KEYS = """
    SELECT ifnull(max(id), 0), count(*) FROM (SELECT id, time_ms FROM keys ORDER BY id LIMIT :most)
    WHERE time_ms <= :keys_ms"""
_KEY_AT = "SELECT id, time_ms FROM keys WHERE id >= ? ORDER BY id LIMIT 1"
_RECORD_AT = """
    SELECT r.offset, p.time_ms FROM records AS r JOIN pushes AS p ON p.id = r.push
    WHERE r.stream = ? AND r.offset >= ? ORDER BY r.offset LIMIT 1"""
_DELETE_KEYS = "DELETE FROM keys WHERE id <= ? AND time_ms <= ?"


class Look(NamedTuple):
    """What a look found that may go.

    Attributes:
        raised: pairs of a stream's id and its new floor.
        records: how many.
        rest: streams that have more, by name, and how many of theirs these are.
        keys: how many have ended, key: the last of them, and keys_ms: the time up to which they have.
    """

    raised: list[tuple[int, int]]
    records: int
    rest: dict[str, int]
    keys: int
    key: int
    keys_ms: int


@dataclass(slots=True)
class LogSweep(Sweep):
    """That of a log on SQLite."""

    def step(self, connection: sqlite3.Connection, retention: Retention, now_ms: int, before_ms: int) -> None:
        """Looks at some streams. Blocks; called in a thread."""
        if not self.at:
            self.started_ms = now_ms
        found = rows(connection, _SWEEP, (self.at, SWEPT_AT_ONCE), list[tuple[int, str, int, int, int | None]])
        for stream, name, floor, head, oldest_ms in found:
            rule = retention.rule(name)
            kept_ms = _kept_from(rule, now_ms)
            is_old = oldest_ms is not None and oldest_ms < kept_ms
            if (head - floor > rule.count or is_old) and head > floor and (oldest_ms is None or oldest_ms < before_ms):
                old = _first_kept(connection, stream, floor, head, kept_ms) - floor - 1 if is_old else 0
                self.due[name] = max(1, old, head - floor - rule.count)
        self.at = found[-1][0] if len(found) == SWEPT_AT_ONCE else 0


def _first_kept(connection: sqlite3.Connection, stream: int, floor: int, head: int, kept_ms: int) -> int:
    """The offset of the first record that is not too old: times rise with offsets, so few are looked at."""
    low, high = floor + 1, head + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_RECORD_AT, (stream, middle)).fetchone()
        if row is not None and row[1] < kept_ms:
            low = max(middle, row[0]) + 1
        else:
            high = middle
    return low


def old_keys(connection: sqlite3.Connection, keys_ms: int) -> int:
    """About how many keys are from up to then: they are numbered in the order of their times."""
    first = connection.execute(_KEY_AT, (0,)).fetchone()
    if first is None or first[1] > keys_ms:
        return 0
    low, high = first[0], connection.execute("SELECT max(id) FROM keys").fetchone()[0] + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_KEY_AT, (middle,)).fetchone()
        if row is not None and row[1] <= keys_ms:
            low = max(middle, row[0]) + 1
        else:
            high = middle
    return int(low - first[0])


def _kept_from(rule: Rule, now_ms: int) -> int:
    return now_ms - int(rule.age_s * 1000)


def look(
    connection: sqlite3.Connection,
    names: Iterable[str],
    retention: Retention,
    now_ms: int,
    before_ms: int,
    keys_ms: int,
    most: int,
) -> Look:
    """What may go of some streams, at most so many records, and of keys up to `keys_ms`. Blocks; called in a thread."""
    names = list(names)
    rules = ((name, retention.rule(name)) for name in names)
    due = json.dumps([(name, rule.count, _kept_from(rule, now_ms)) for name, rule in rules])
    raised: list[tuple[int, int]] = []
    rest: dict[str, int] = {}
    left = most
    limits = {"due": due, "before_ms": before_ms, "most": most}
    found = rows(connection, _LIMITS, limits, list[tuple[int, int, int, int]])
    for at, stream, floor, upto in found:
        count = min(upto - floor, left)
        if count > 0:
            raised.append((stream, floor + count))
            left -= count
        if count < upto - floor or count == most:
            rest[names[at]] = count
    key, keys = connection.execute(_OLD_KEYS, {"most": most, "keys_ms": keys_ms}).fetchone()
    return Look(raised, most - left, rest, keys, key, keys_ms)


def let_go(connection: sqlite3.Connection, found: Look) -> list[tuple[str, int, int, int]]:
    """Does it, in a transaction. Blocks; called in a thread.

    Returns:
        Name, id, floor and head of each stream that has a new floor.
    """
    if found.keys:
        connection.execute(_DELETE_KEYS, (found.key, found.keys_ms))
    if not found.raised:
        return []
    raised = json.dumps(found.raised)
    connection.execute(_DELETE, (raised,))
    connection.execute(_RAISE, (raised,))
    return rows(connection, _NAMES, (raised,), list[tuple[str, int, int, int]])

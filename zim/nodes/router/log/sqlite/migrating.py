"""Brings the database of an older zim up to date. Blocks; a router does it once, before it serves."""

from __future__ import annotations

import json
import sqlite3
from itertools import groupby
from operator import itemgetter

from zim.nodes.router.log.sqlite.tables import BANS, KEYS

FORMAT = 3  # of the database, in the file's header

# Format 1 had a row for each stream that a keyed push went to. If two pushes shared a key the first one has it.
_OLD_KEYS = """
    SELECT k.push_id, k.digest, k.offset, (SELECT time_ms FROM meta) FROM old_keys AS k
    JOIN streams AS s ON s.id = k.stream
    JOIN (SELECT push_id, min(id) AS id FROM old_keys GROUP BY push_id) AS first USING (push_id)
    WHERE k.digest = (SELECT digest FROM old_keys WHERE id = first.id)
    ORDER BY k.push_id, s.name"""


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """One transaction: whoever is killed in between finds what was there before."""
    if version == FORMAT:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if version < 2:
            _rekey(connection)
        connection.execute(BANS)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _rekey(connection: sqlite3.Connection) -> None:
    """From format 1 to 2."""
    connection.execute("ALTER TABLE pushes ADD COLUMN wall_ms INTEGER NOT NULL DEFAULT 0")
    connection.execute("ALTER TABLE keys RENAME TO old_keys")
    connection.execute(KEYS)
    writer = connection.cursor()
    for (push_id, digest, time_ms), rows in groupby(connection.execute(_OLD_KEYS), itemgetter(0, 1, 3)):
        offsets = json.dumps([row[2] for row in rows])
        writer.execute(
            "INSERT INTO keys (push_id, digest, time_ms, home_ms, offsets) VALUES (?, ?, ?, ?, ?)",
            (push_id, digest, time_ms, time_ms, offsets),
        )
    connection.execute("DROP TABLE old_keys")

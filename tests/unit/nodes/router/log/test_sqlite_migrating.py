"""Databases of an older zim."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.nodes.router.log.contract import CONFLICT, NOW, duplicate, found, many, new
from tests.unit.nodes.router.log.sqlite_support import acquired, direct, opened
from zim.errors import NodeError
from zim.nodes.router.log.sqlite.opening import FILE

OLD_KEYS = """
    DROP TABLE bans;
    ALTER TABLE pushes DROP COLUMN wall_ms;
    DROP TABLE keys;
    CREATE TABLE keys (
        id INTEGER PRIMARY KEY, push_id TEXT NOT NULL, stream INTEGER NOT NULL, offset INTEGER NOT NULL,
        digest BLOB NOT NULL, until_ms INTEGER NOT NULL, UNIQUE (push_id, stream)
    );
    PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A log of format 1: a keyed push in two streams; and two pushes that shared a key, as format 1 let them."""
    log = opened(tmp_path, direct)
    log.append(acquired(log), [new("u:9", at=NOW + 5), many("a", "u:2", "u:1"), new("u:1", "b"), new("u:2", "b")])
    log.close()
    with closing(sqlite3.connect(tmp_path / FILE)) as c:
        c.executescript(OLD_KEYS)
        ids = dict(c.execute("SELECT name, id FROM streams").fetchall())
        rows = [("a", "u:2", 1, b"d"), ("a", "u:1", 1, b"d"), ("b", "u:1", 2, b"e"), ("b", "u:2", 2, b"f")]
        for push_id, stream, offset, digest in rows:
            c.execute("INSERT INTO keys VALUES (NULL, ?, ?, ?, ?, 0)", (push_id, ids[stream], offset, digest))
        c.commit()
    return tmp_path


def test_keys_of_format_1_are_known(old: Path) -> None:
    for _ in range(2):
        log = opened(old, direct)
        assert found(log, many("a", "u:1", "u:2")) == duplicate(1, 1, at=NOW + 5)
        assert found(log, many("b", "u:1", digest=b"e")) == duplicate(2, at=NOW + 5)
        assert found(log, many("b", "u:2", digest=b"f")) == CONFLICT
        assert log.read("u:9", 0, 9, 9, 99, NOW).records[0].time_ms == NOW + 5
        log.close()


def test_a_migration_that_fails_leaves_what_was_there(old: Path) -> None:
    with closing(sqlite3.connect(old / FILE)) as c:
        c.execute("CREATE TABLE old_keys (x)")  # so that a statement of it fails
        c.commit()
    with pytest.raises(NodeError, match="old_keys"):
        opened(old, direct)
    with closing(sqlite3.connect(old / FILE)) as c:
        assert c.execute("SELECT count(*) FROM keys").fetchone() == (4,)
        assert c.execute("PRAGMA user_version").fetchone() == (1,)

"""SQLite's errors → what they mean for a log. Pure."""

from __future__ import annotations

import sqlite3

from zim.errors import ZimError
from zim.nodes.router.log import Damaged, unavailable, unknown

_PRIMARY = 0xFF  # an extended result code's last byte is the primary one; https://sqlite.org/rescode.html

# A statement that is right fails with the general error only for what it found: JSON or text that is none, a table that
# is not there; and with a constraint only if an offset that is free is not.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT}

# The frame that makes a commit valid is written last, so these surely left it out. After others, a failed fsync above
# all, it may be on the disk, and the next start would find it there. SQLite src/wal.c, walFrames.
_SURELY_NOT_COMMITTED = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR_WRITE}


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk has no room."""
    return _code(error) & _PRIMARY == sqlite3.SQLITE_FULL


def before_commit(error: sqlite3.Error, file: str) -> ZimError:
    """What it means before COMMIT, or out of a SELECT: nothing was written."""
    return Damaged(file, _text(error)) if is_damage(error) else unavailable(_text(error))


def of_commit(error: sqlite3.Error, file: str) -> ZimError:
    """What it means out of COMMIT."""
    code = _code(error)
    if code in _SURELY_NOT_COMMITTED or code & _PRIMARY in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
        return before_commit(error, file)
    return unknown(_text(error))


def is_damage(error: sqlite3.Error) -> bool:
    """Whether it tells of what the file holds, not of the disk."""
    return _code(error) & _PRIMARY in _DAMAGE


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


def _text(error: sqlite3.Error) -> str:
    return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"

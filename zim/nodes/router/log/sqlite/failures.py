"""SQLite's errors → what they mean for a log. Pure."""

from __future__ import annotations

import sqlite3

from zim.nodes.router.log import Damaged, LogError, Unavailable, Unknown

_PRIMARY = 0xFF  # an extended result code's last byte is the primary one; https://sqlite.org/rescode.html
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

# The frame that makes a commit valid is written last, so these surely left it out. After others, a failed fsync above
# all, it may be on the disk, and the next start would find it there. SQLite src/wal.c, walFrames.
_SURELY_NOT_COMMITTED = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR_WRITE}


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk has no room."""
    return _code(error) & _PRIMARY == sqlite3.SQLITE_FULL


def before_commit(error: sqlite3.Error, file: str) -> LogError:
    """What it means before COMMIT: nothing was written."""
    if _code(error) & _PRIMARY in _DAMAGE:
        return Damaged(file, str(error))
    return Unavailable(_text(error))


def of_commit(error: sqlite3.Error, file: str) -> LogError:
    """What it means out of COMMIT."""
    code = _code(error)
    if code in _SURELY_NOT_COMMITTED or code & _PRIMARY in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
        return before_commit(error, file)
    return Unknown(_text(error))


def of_read(error: sqlite3.Error, file: str) -> LogError:
    """What it means out of a SELECT. One that is right fails only for what the file or the disk is."""
    if _code(error) & _PRIMARY in (*_DAMAGE, sqlite3.SQLITE_ERROR):  # JSON and text that are none
        return Damaged(file, str(error))
    return Unavailable(_text(error))


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


def _text(error: sqlite3.Error) -> str:
    return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"

"""A copy of a router's log, taken while the router runs. Everything here blocks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from zim.errors import NodeError
from zim.nodes.router.log.sqlite.opening import FILE, check_is_ours


class BackedUp(NamedTuple):
    """What a copy has."""

    file: Path
    streams: int
    messages: int
    bytes: int


def back_up(folder: Path, target: Path) -> BackedUp:
    """Copies the log of a folder into another folder, as it is at one moment: https://sqlite.org/lang_vacuum.html.

    The copy that is there already stays until the new one is whole, looked through, and on the disk.

    Args:
        folder: of the router, which may run.
        target: made if it is not there.

    Raises:
        NodeError: there is no log, it is damaged, or the copy cannot be written.
    """
    path = folder / FILE
    if not path.exists():
        raise NodeError(f"{path} is not there: there is nothing to copy")
    try:
        check_is_ours(path)
    except OSError as e:
        raise NodeError(f"{path} cannot be read: {e.strerror or e}") from None
    copy, fresh = target / FILE, target / f"{FILE}.new"
    try:
        target.mkdir(parents=True, exist_ok=True)
        if copy.exists() and copy.samefile(path):
            raise NodeError(f"{copy} is the log itself; right is another folder")
        _remove(fresh)
        try:
            _copy(path, fresh)
            found = _look_through(fresh, copy)
            _sync(fresh)
            fresh.replace(copy)
        finally:
            _remove(fresh)
        _sync(target)
    except sqlite3.Error as e:
        raise NodeError(f"{path} cannot be copied to {copy}: {e}") from None
    except OSError as e:
        raise NodeError(f"{copy} cannot be written: {e.strerror or e}") from None
    return found


def _copy(path: Path, fresh: Path) -> None:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
        db.execute("VACUUM INTO ?", (str(fresh),))


def _look_through(fresh: Path, copy: Path) -> BackedUp:
    with closing(sqlite3.connect(f"{fresh.absolute().as_uri()}?mode=ro", uri=True)) as db:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise NodeError(f"what was copied to {copy} is damaged, and thrown away: {str(verdict).splitlines()[0]}")
        (streams,) = db.execute("SELECT count(*) FROM streams").fetchone()
        (messages,) = db.execute("SELECT count(*) FROM records").fetchone()
    return BackedUp(copy, streams, messages, fresh.stat().st_size)


def _remove(fresh: Path) -> None:
    for tail in ("", "-journal", "-wal", "-shm"):
        fresh.with_name(fresh.name + tail).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

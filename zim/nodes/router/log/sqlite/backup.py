"""A copy of a router's log, taken while the router runs. Everything here blocks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from zim.errors import NodeError
from zim.nodes.router.log.sqlite.opening import FILE, check_is_ours
from zim.nodes.router.log.sqlite.planning import damage

_MESSAGES = """
    SELECT s.name, r.offset, r.crc, r.only_for, p.push_id, p.op, p.time_ms, p.expires_ms, p.body FROM records AS r
    JOIN streams AS s ON s.id = r.stream LEFT JOIN pushes AS p ON p.id = r.push"""


class BackedUp(NamedTuple):
    """What a copy has."""

    file: Path
    streams: int
    messages: int
    bytes: int


def back_up(folder: Path, target: Path) -> BackedUp:
    """Copies the log of a folder into another folder, as it is at one moment: https://sqlite.org/lang_vacuum.html.

    The copy that is there already stays until the new one is whole, looked through, and on the disk. It stays as well
    where messages of the log are damaged: then the new one has another name.

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
            found, damaged = _look_through(fresh, copy)
            _sync(fresh)
            fresh.replace(copy.with_name(f"{FILE}.damaged") if damaged else copy)
        finally:
            _remove(fresh)
        _sync(target)
        if damaged:
            raise NodeError(f"{path} has damaged messages, {damaged}: the copy is {copy}.damaged; {_last(copy)}")
    except sqlite3.Error as e:
        raise NodeError(f"{path} cannot be copied to {copy}: {e}") from None
    except OSError as e:
        raise NodeError(f"{copy} cannot be written: {e.strerror or e}") from None
    return found


def _copy(path: Path, fresh: Path) -> None:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
        db.execute("VACUUM INTO ?", (str(fresh),))


def _last(copy: Path) -> str:
    return f"{copy} stays as it was" if copy.exists() else "the router passes over them"


def _look_through(fresh: Path, copy: Path) -> tuple[BackedUp, str]:
    """What the copy has; and which messages are not what was written, for people, "" for none."""
    with closing(sqlite3.connect(f"{fresh.absolute().as_uri()}?mode=ro", uri=True)) as db:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise NodeError(f"what was copied to {copy} is damaged, and thrown away: {str(verdict).splitlines()[0]}")
        (streams,) = db.execute("SELECT count(*) FROM streams").fetchone()
        messages, damaged, first = 0, 0, ""
        for stream, offset, *rest in db.execute(_MESSAGES):
            messages += 1
            if why := damage(stream, offset, *rest):
                damaged += 1
                first = first or f"the first {stream}, offset {offset}: {why}"
    said = f"{damaged:,} of {messages:,}, {first}" if damaged else ""
    return BackedUp(copy, streams, messages, fresh.stat().st_size), said


def _remove(fresh: Path) -> None:
    for tail in ("", "-journal", "-wal", "-shm"):
        fresh.with_name(fresh.name + tail).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

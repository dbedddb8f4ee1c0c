"""Makes the database, or opens and checks the one that is there. Blocks; a router does it once, before it serves."""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zim.errors import NodeError, NotNow
from zim.nodes.router.log.sqlite import failures, tables
from zim.nodes.router.log.sqlite.migrating import FORMAT, migrate
from zim.nodes.router.log.sqlite.wal import lost_commits, valid_frames

FILE = "log.db"
_WITHOUT_WAL = b"\x01\x01"  # versions in the header of a database whose journal is no WAL
APPLICATION = 0x7A696D4C  # "zimL", in the file's header
CHECKED_BYTES = 256 << 20  # a file up to this size is checked page by page; a larger one would keep the router waiting

WAL_PAGES, MOST_WAL_PAGES = 1_000, 4_000  # at which a commit also checkpoints: 4 to 16 MB, some milliseconds or more
_FRAME_BYTES = 4_096 + 24  # of a page in the WAL: https://sqlite.org/fileformat2.html#the_write_ahead_log
WAL_KEPT_BYTES = 64 << 20  # a WAL that grew above this is cut back to it
_WRITER_CACHE_KB, _READER_CACHE_KB = 32 << 10, 8 << 10
_BUSY_MS = 2_000  # someone else holds the file: a backup, a person with sqlite3


@dataclass(frozen=True)
class OpenedFile:
    """A database that is good to use.

    Attributes:
        writer, reader: connections, usable from any thread, by one at a time.
        epoch: made with the database.
        time_ms: the newest log time.
    """

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    epoch: str
    time_ms: int


def wal_pages(ballast_bytes: int) -> int:
    """How many pages the WAL takes: the more, the less is written twice; but a start on a full disk, which has half of
    the ballast, must be able to put them into the file."""
    return max(WAL_PAGES, min(ballast_bytes // 2 // _FRAME_BYTES, MOST_WAL_PAGES))


def open_database(
    folder: Path,
    routers: Sequence[str],
    factory: type[sqlite3.Connection],
    most_wal_pages: int = WAL_PAGES,
    takes_backups: bool = False,
) -> OpenedFile:
    """
    Args:
        folder: of the router.
        routers: names of all routers of the topology.
        factory: of connections.
        most_wal_pages: at which a commit also checkpoints.
        takes_backups: it may be a copy that nobody has called restored.

    Raises:
        NodeError: it cannot be used; says why, and what to do. NotNow: the disk has no room.
    """
    path = folder / FILE
    writer = None
    try:
        if not path.exists():
            _refuse_others(folder, routers)
            _make(path, routers)
        version = check_is_ours(path)
        _check_backup(path, takes_backups)
        writer = _connect(path, factory, _WRITER_CACHE_KB, most_wal_pages)
        is_whole = _check_wal(path, writer)
        _check_pages(path, writer, is_whole)
        epoch, theirs, time_ms = _check_meta(path, writer)
        _check_routers(path, routers, theirs)
        migrate(writer, version)
        return OpenedFile(writer, _connect(path, factory, _READER_CACHE_KB, most_wal_pages), epoch, time_ms)
    except sqlite3.Error as e:
        _close(writer)
        if failures.is_damage(e):
            raise _damaged(path, str(e)) from None
        raise (NotNow if failures.is_full(e) else NodeError)(f"{path} cannot be opened: {e}") from None
    except (ValueError, TypeError) as e:  # a column, or SQLite's own words for what is wrong, that are no text
        _close(writer)
        raise _damaged(path, str(e)) from None
    except OSError as e:
        _close(writer)
        kind = NotNow if e.errno in (errno.ENOSPC, errno.EDQUOT) else NodeError
        raise kind(f"{path} cannot be opened: {e.strerror or e}") from None
    except NodeError:
        _close(writer)
        raise


def begin_epoch(folder: Path, routers: Sequence[str], with_wal: bool = False) -> str:
    """A backup was restored: what its streams get from now on is another history than what came after the backup.

    Args:
        with_wal: the WAL beside it came out of the backup, too.

    Returns:
        The new epoch. Session numbers jump, past all that may have been given since the backup.

    Raises:
        NodeError: see `open_database`; or there is no log, or a WAL that may be another log's. SQLite would take that
            for this one's, and write what it has over the copy.
    """
    path = folder / FILE
    if not path.exists():
        raise NodeError(f"{path} is not there; put the copy there first")
    if not with_wal and _has_wal(path):
        raise NodeError(f"{_foreign_wal(path)}; if it came out of the backup, too, say so: --with-wal")
    opened = open_database(folder, routers, sqlite3.Connection, takes_backups=True)
    epoch = secrets.token_hex(8)
    try:
        opened.writer.execute("UPDATE meta SET epoch = ?, next_seq = next_seq + ?", (epoch, 1 << 32))
    except sqlite3.Error as e:
        raise NodeError(f"{folder / FILE} cannot be written: {e}") from None
    finally:
        opened.reader.close()
        opened.writer.close()
    return epoch


def _has_wal(path: Path) -> bool:
    wal = path.with_name(path.name + "-wal")
    return wal.exists() and wal.stat().st_size > 0


def _foreign_wal(path: Path) -> str:
    return (
        f"{path}-wal is there: what the log before this one wrote last. It would be written over the copy, so move it "
        f"away, and {path.name}-shm"
    )


def _check_backup(path: Path, is_welcome: bool) -> None:
    """A copy of `back_up` has never been opened, so its header does not say that it has a WAL.

    Raises:
        NodeError: it is one, and nobody has said so; or another log's WAL is beside it.
    """
    with path.open("rb") as f:
        versions = f.read(100)[18:20]  # https://sqlite.org/fileformat2.html#file_format_version_numbers
    if versions != _WITHOUT_WAL:
        return
    if _has_wal(path):
        raise NodeError(_foreign_wal(path))
    if not is_welcome:
        raise NodeError(
            f"{path} is a copy out of a backup: offsets that were given after it are given again, and clients have to "
            f"be told. Say so before it is used: zim restored {path.parent.name}"
        )


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        connection.close()


def _damaged(path: Path, reason: str) -> NodeError:
    return NodeError(
        f"{path} is damaged: {reason}. Restore the folder from a backup, or move {path.name}* out of it: then the "
        f"router starts with an empty log, and clients are told that what they missed is gone"
    )


def _refuse_others(folder: Path, routers: Sequence[str]) -> None:
    """A router whose number was changed would start with an empty log beside its own, and nobody be told.

    Raises:
        NodeError: the folders beside this one have the log of a router that the topology does not know.
    """
    for path in sorted(folder.parent.glob(f"router-*/{FILE}")):
        if path.parent.name not in routers:
            raise NodeError(
                f"{path} is the log of {path.parent.name}, and the topology has {', '.join(sorted(routers))}. Each "
                f"stream lives at one router, by its id: put {path.parent.name} back into the topology, or move "
                f"{path.parent} away to start {folder.name} with an empty log"
            )


def _make(path: Path, routers: Sequence[str]) -> None:
    """Under another name first: a router that is killed in between leaves nothing half made."""
    for tail in ("-wal", "-shm"):
        if path.with_name(path.name + tail).exists():
            raise _damaged(path, f"{path.name}{tail} is there without it")
    fresh = path.with_name(path.name + ".new")
    for tail in ("", "-journal", "-wal", "-shm"):
        fresh.with_name(fresh.name + tail).unlink(missing_ok=True)
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; {tables.SCHEMA} COMMIT;"
        )
        values = (secrets.token_hex(8), json.dumps(sorted(routers)))
        connection.execute("INSERT INTO meta VALUES (1, ?, ?, '', 0, 0, 0, 1)", values)
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    finally:
        connection.close()
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def check_is_ours(path: Path) -> int:
    """By the header (https://sqlite.org/fileformat2.html#the_database_header), before SQLite touches the file.

    Returns:
        The format.

    Raises:
        NodeError: it is another program's, of a format that is not known, or no database.
    """
    with path.open("rb") as f:
        header = f.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise _damaged(path, "it is not an SQLite database" if header else "it is empty")
    application, version = header[68:72], int.from_bytes(header[60:64], "big")
    if application != APPLICATION.to_bytes(4, "big"):
        raise NodeError(f"{path} is a database of another program; move it away, or set another fabric.data_dir")
    if not 0 < version <= FORMAT:
        raise NodeError(
            f"{path} has format {version}, and this zim knows format {FORMAT}: start the zim that wrote it, or move "
            f"{path.name}* away to start with an empty log"
        )
    return version


def _connect(path: Path, factory: type[sqlite3.Connection], cache_kb: int, most_wal_pages: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False, factory=factory
    )
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "fullfsync = ON",  # macOS: F_FULLFSYNC, as fsync alone does not reach the disk there
            "checkpoint_fullfsync = ON",
            "secure_delete = OFF",
            "temp_store = MEMORY",
            f"cache_size = {-cache_kb}",
            f"wal_autocheckpoint = {most_wal_pages}",
            f"journal_size_limit = {WAL_KEPT_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _check_wal(path: Path, connection: sqlite3.Connection) -> bool:
    """Takes what a router that was killed left in the WAL, and leaves none.

    Returns:
        Whether that is so: on a full disk it stays where it is.
    """
    wal = path.with_name(path.name + "-wal")
    is_taken = True
    try:
        frames = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    except sqlite3.Error as e:
        if not failures.is_full(e):
            raise
        frames, is_taken = valid_frames(wal), False
    lost = lost_commits(wal, frames)
    if lost > 1:
        raise _damaged(path, f"in {path.name}-wal a frame is broken, and {lost} commits stand behind it")
    if is_taken:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return is_taken


def _check_pages(path: Path, connection: sqlite3.Connection, is_whole: bool) -> None:
    """is_whole: nothing of the database is in its WAL."""
    pages, page_bytes = (connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("page_count", "page_size"))
    size = path.stat().st_size
    if is_whole and size < pages * page_bytes:
        raise _damaged(path, f"it has {size} bytes where {pages * page_bytes} should be")
    if size <= CHECKED_BYTES:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _damaged(path, str(verdict).replace("\n", " "))


def _check_meta(path: Path, connection: sqlite3.Connection) -> tuple[str, list[str], int]:
    row = connection.execute("SELECT epoch, routers, time_ms FROM meta").fetchone()
    if row is None:
        raise _damaged(path, "its table meta is empty")
    return str(row[0]), list(map(str, json.loads(row[1]))), int(row[2])


def _how_to_mend(routers: Sequence[str], theirs: Sequence[str]) -> str:
    missing, added = [r for r in theirs if r not in routers], [r for r in sorted(routers) if r not in theirs]
    back = f"put {', '.join(missing)} back into" if missing else ""
    out = f"take {', '.join(added)} out of" if added else ""
    return " and ".join(filter(None, (back, out)))


def _check_routers(path: Path, routers: Sequence[str], theirs: list[str]) -> None:
    if sorted(routers) != theirs:
        raise NodeError(
            f"{path} belongs to the routers {', '.join(theirs)}, and the topology has {', '.join(sorted(routers))}. "
            f"Each stream lives at one of them, and would be looked for at another: {_how_to_mend(routers, theirs)} "
            f"the topology, or set another fabric.data_dir to start with empty logs"
        )

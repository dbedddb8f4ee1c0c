"""The connection that writes: one transaction at a time, what its failures mean, and what a full disk asks for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from zim.nodes.router.log import Damaged, unavailable
from zim.nodes.router.log.sqlite import failures, tables
from zim.nodes.router.log.sqlite.ballast import Ballast
from zim.nodes.router.log.sqlite.opening import WAL_KEPT_BYTES
from zim.nodes.router.log.sqlite.worker import Worker, forget_cursors

T = TypeVar("T")

GONE = "was moved or deleted while the router had it open: put it back, or stop the router"
_LOOK_S = 1.0  # how often a log without room looks whether there is some


class Writer:
    """The connection that writes. Whoever calls has the turn.

    Attributes:
        turn: to write.
        is_full: the disk was; nothing but trimming is let in until there is room.
        is_gone: the file was moved or deleted: what is written reaches nobody any more.
    """

    def __init__(
        self,
        worker: Worker,
        path: Path,
        ballast: Ballast,
        for_start: Ballast,
        is_full: bool,
        monotonic: Callable[[], float],
    ) -> None:
        """
        Args:
            path: of the database.
            for_start: ballast that only a start gives up.
            is_full: see Attributes.
        """
        self.turn, self.is_full, self.is_gone = worker.turn, is_full, False
        self._worker, self._monotonic = worker, monotonic
        self._ballast, self._for_start = ballast, for_start
        self._path, self._wal = path, path.with_name(path.name + "-wal")
        self._look_at = self._tend_at = 0.0
        self._file = _identity(path)

    def commit(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """The job, in a transaction. Switches: until it is on the disk.

        Raises:
            Unavailable, Unknown, Damaged: see Log.
        """
        return self._worker.run(lambda c: self._transaction(c, job))

    def _transaction(self, c: sqlite3.Connection, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            _roll_back(c)
            self._refuse_gone()
            c.execute("BEGIN IMMEDIATE")
            result = job(c)
        except sqlite3.Error as e:
            _roll_back(c)
            self._note(e)
            raise failures.before_commit(e, str(self._path)) from None
        except UnicodeDecodeError as e:
            _roll_back(c)
            raise Damaged(str(self._path), f"a row is not readable ({e})") from None
        except BaseException:
            _roll_back(c)
            raise
        try:
            c.execute("COMMIT")
        except sqlite3.Error as e:
            _roll_back(c)
            self._note(e)
            raise failures.of_commit(e, str(self._path)) from None
        return result

    def _refuse_gone(self) -> None:
        """A file that has no name any more takes what is written, and is empty for the next start."""
        self.is_gone = _identity(self._path) != self._file
        if self.is_gone:
            raise unavailable(f"{self._path} {GONE}")

    def _note(self, error: sqlite3.Error) -> None:
        if failures.is_full(error):
            self.is_full = True
            self._ballast.give_up()

    def refuse_full(self) -> None:
        """
        Raises:
            Unavailable: the disk was full, and is as far as anybody knows.
        """
        if self.is_full and self._monotonic() >= self._look_at:
            self._look_at = self._monotonic() + _LOOK_S
            try:
                self._worker.run(self._look_for_room)
            except (sqlite3.Error, OSError) as e:
                raise unavailable(str(e)) from None
        if self.is_full:
            raise unavailable("the disk is full")

    def tend(self, reader: Worker) -> None:
        """Looks after the files, once a second: a WAL that grew, a disk that was full, the ballast.

        Args:
            reader: its turn is taken: a WAL cannot be emptied while somebody reads.
        """
        if self._monotonic() < self._tend_at:
            return
        self._tend_at = self._monotonic() + _LOOK_S
        with reader.turn:
            try:
                reader.run(forget_cursors)
                self._worker.run(self._look_after_files)
            except sqlite3.Error as e:
                raise failures.before_commit(e, str(self._path)) from None
            except OSError as e:
                raise unavailable(str(e)) from None

    def _look_after_files(self, c: sqlite3.Connection) -> None:
        _roll_back(c)
        self._refuse_gone()
        if self.is_full or self._wal.stat().st_size > WAL_KEPT_BYTES:
            tables.empty_wal(c)
        self._look_for_room(c)
        forget_cursors(c)

    def _look_for_room(self, c: sqlite3.Connection) -> None:
        """Pages that trimming has freed are room, too."""
        if self._ballast.make():
            self._for_start.make()
        if self.is_full:
            self.is_full = not self._ballast.is_there and tables.spare_bytes(c) < 2 * self._ballast.size

    def close(self) -> None:
        """Closes the connection. Switches: until what runs is done."""
        self._worker.close()


def _roll_back(connection: sqlite3.Connection) -> None:
    """What cannot be rolled back now is before the next transaction."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

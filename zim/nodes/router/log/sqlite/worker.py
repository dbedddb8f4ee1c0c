"""One SQLite connection and the turn to use it: one job at a time, each in a thread, so that the hub never waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import gevent

from zim.nodes.router.log.turn import Turn

T = TypeVar("T")

_POLL_S = 0.001
CURSORS = 200


class InThread(Protocol):
    """Runs a job in a thread, and blocks the calling greenlet only: `gevent.get_hub().threadpool.apply`."""

    def __call__(self, job: Callable[[], T], /) -> T:
        """What the job returns or raises."""


class Worker:
    """One connection, and the thread that its job runs in.

    Attributes:
        turn: to be held around `run`, and around whatever must not come between two jobs.
    """

    def __init__(self, connection: sqlite3.Connection, in_thread: InThread) -> None:
        self.turn = Turn()
        self._connection, self._in_thread = connection, in_thread
        self._is_running = False

    def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """What the job returns or raises. The caller has the turn. The job must not log, nor touch a gevent lock.

        Switches: until the thread is done. A caller that is killed leaves its job running, and the next one waits for
        it; a job that has not begun never will.
        """
        while self._is_running:
            gevent.sleep(_POLL_S)
        self._is_running = True
        to_do = [job]  # whoever takes it out, in one step, decides whether it runs
        try:
            results, error = self._in_thread(lambda: self._work(to_do))
        except BaseException:
            with suppress(IndexError):
                to_do.pop()
                self._is_running = False
            raise
        if error is not None:
            raise error
        return results[0]

    def _work(self, to_do: list[Callable[[sqlite3.Connection], T]]) -> tuple[list[T], Exception | None]:
        """The result, or the error: gevent would print one that leaves the thread, and a full disk is no defect."""
        try:
            job = to_do.pop()
        except IndexError:
            return [], None  # nobody waits for it
        try:
            return [job(self._connection)], None
        except Exception as e:  # noqa: BLE001 `run` raises it
            return [], e
        finally:
            self._is_running = False

    def close(self) -> None:
        """Closes the connection. Switches: until a job that runs is done."""
        with self.turn:
            self.run(_close)


def forget_cursors(connection: sqlite3.Connection) -> None:
    """Lets go of what sqlite3 remembers of cursors that are gone.

    That is a weak reference to each until there are so many (CPython, Modules/_sqlite/connection.c). They lie all over
    the memory of a router that had much to do, and a MiB goes back to the system only as a whole.
    """
    for _ in range(CURSORS):
        connection.cursor()


def _close(connection: sqlite3.Connection) -> Any:
    connection.close()

"""A COMMIT that fails, two owners, a caller that is killed, streams that the cache forgets."""

from __future__ import annotations

import gc
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gevent
import pytest

from tests.unit.nodes.router.log.contract import FOR_EVER, NOW, many, new, rules, stored
from tests.unit.nodes.router.log.sqlite_support import Clock, acquired, check_told, direct, in_thread, opened, told
from zim.errors import Unavailable, Unknown
from zim.nodes.router.log import Appended, Fenced
from zim.nodes.router.log.sqlite.worker import CURSORS, forget_cursors
from zim.nodes.router.log.standings import Standings
from zim.nodes.router.log.turn import Turn

T = TypeVar("T")


def failing(code: int, is_done: bool, of: str = "COMMIT") -> type[sqlite3.Connection]:
    """A connection whose next such statement fails, done or not. Armed by its class attribute."""

    class Failing(sqlite3.Connection):
        is_armed = False

        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if not (sql.startswith(of) and type(self).is_armed):
                return super().execute(sql, parameters)
            type(self).is_armed = False
            if is_done:
                super().execute(sql, parameters)
            error = sqlite3.OperationalError("as the test says")
            error.sqlite_errorcode = code
            raise error

    return Failing


@pytest.mark.parametrize("is_done", [True, False])
def test_a_commit_of_which_nothing_is_known(tmp_path: Path, is_done: bool) -> None:
    factory = failing(sqlite3.SQLITE_IOERR_FSYNC, is_done)
    log = opened(tmp_path, in_thread, factory=factory)
    lease = acquired(log)
    log.append(lease, [new(push_id="a")])
    batch = [many("b", "u:1", "u:2")]
    factory.is_armed = True  # type: ignore[attr-defined]
    with pytest.raises(Unknown):
        log.append(lease, batch)
    assert log.heads(["u:1"])["u:1"].head == 1
    for call in (
        lambda: log.append(lease, [new()]),
        lambda: log.reserve_seqs(lease, 1),
        lambda: log.trim(lease, rules(), NOW, FOR_EVER, 9),
    ):
        with pytest.raises(Unknown):
            call()
    assert log.settle(lease, batch) == ([Appended("stored", (2, 1), NOW)] if is_done else None)
    assert log.settle(lease, batch) is None  # nothing is open any more
    assert log.append(lease, batch) == [Appended("duplicate" if is_done else "stored", (2, 1), NOW)]
    log.close()
    log = opened(tmp_path, direct)
    assert [log.heads([s])[s].head for s in ("u:1", "u:2")] == [2, 1]
    log.close()


def test_settling_may_fail_too(tmp_path: Path) -> None:
    factory = failing(sqlite3.SQLITE_IOERR_FSYNC, is_done=False)
    log = opened(tmp_path, direct, factory=factory)
    lease = acquired(log)
    for call in (log.append, log.settle):
        factory.is_armed = True  # type: ignore[attr-defined]
        with pytest.raises(Unknown):
            call(lease, [new()])
    assert log.settle(lease, [new()]) is None
    assert log.append(lease, [new()]) == stored(1)
    log.close()


@pytest.mark.parametrize("is_done", [True, False])
def test_what_settling_has_read_and_not_said_is_said_when_it_is_asked_again(tmp_path: Path, is_done: bool) -> None:
    factory = failing(sqlite3.SQLITE_IOERR_FSYNC, is_done)
    log = opened(tmp_path, direct, factory=factory)
    lease, batch = acquired(log), [new()]
    for call in (log.append, log.settle, log.settle):
        factory.is_armed = True  # type: ignore[attr-defined]
        with pytest.raises(Unknown):
            call(lease, batch)
    assert log.settle(lease, batch) == (stored(1) if is_done else None)
    assert log.append(lease, batch) == stored(2 if is_done else 1)
    log.close()


@pytest.mark.parametrize("of", ["BEGIN", "UPDATE", "INSERT INTO records", "COMMIT"])
@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE])
def test_a_batch_that_surely_was_not_written(tmp_path: Path, of: str, code: int) -> None:
    factory = failing(code, is_done=False, of=of)
    log = opened(tmp_path, direct, factory=factory)
    lease = acquired(log)
    log.append(lease, [told("r:1", 1)])
    factory.is_armed = True  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        log.append(lease, [told("r:1", 2), told("r:2", 1)])
    assert [log.heads([s])[s].head for s in ("r:1", "r:2")] == [1, 0]
    assert log.append(lease, [told("r:1", 2), told("r:2", 1)]) == stored(2, 1)
    assert check_told(log, "r:1") == (0, 2)
    log.close()


def test_a_record_that_cannot_be_written_harms_no_other(tmp_path: Path) -> None:
    log = opened(tmp_path, direct)
    lease = acquired(log)
    with pytest.raises(UnicodeEncodeError):
        log.append(lease, [new(), new("u:2", "\udc80")])
    assert log.append(lease, [new()]) == stored(1)
    log.close()


def test_somebody_else_holds_the_file(tmp_path: Path) -> None:
    log = opened(tmp_path, in_thread)
    lease = acquired(log)
    log._writer._worker.run(lambda c: c.execute("PRAGMA busy_timeout = 0").fetchone())
    other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        log.append(lease, [new()])
    other.execute("ROLLBACK")
    other.close()
    assert log.append(lease, [new()]) == stored(1)
    log.close()


def test_two_processes_of_one_folder(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    old = acquired(first)
    first.append(old, [told("r:1", 1)])
    fresh = acquired(second)
    second.append(fresh, [told("r:1", 2)])
    batch = [told("r:1", 2), told("r:1", 3)]
    for call in (
        lambda: first.append(old, batch),
        lambda: first.reserve_seqs(old, 1),
        lambda: first.acknowledge(old, {"r:1": 1}),
    ):
        with pytest.raises(Fenced):
            call()
    first.close()
    assert second.append(fresh, [told("r:1", 3)]) == stored(3)
    assert check_told(second, "r:1") == (0, 3)
    second.close()


class Gate:
    """Threads that wait for a test; an os.read blocks its thread only, patched or not."""

    def __init__(self) -> None:
        self.is_shut = False
        self._out, self._in = os.pipe()
        self.entered = 0

    def run(self, job: Callable[[], T]) -> T:
        """As in_thread, but the job waits while the gate is shut."""

        def waiting() -> T:
            self.pass_through()
            return job()

        return in_thread(waiting)

    def pass_through(self) -> None:
        """In a thread."""
        if self.is_shut:
            self.entered += 1
            os.read(self._out, 1)

    def before_commit(self) -> type[sqlite3.Connection]:
        """Connections that wait before COMMIT."""
        pass_through = self.pass_through

        class Waiting(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                if sql == "COMMIT":
                    pass_through()
                return super().execute(sql, parameters)

        return Waiting

    def open(self) -> None:
        self.is_shut = False
        os.write(self._in, b"x" * self.entered)

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)


def wait_for(is_true: Callable[[], object]) -> None:
    while not is_true():
        gevent.sleep(0.001)


def test_heads_show_only_what_is_committed_and_never_wait_for_it(tmp_path: Path) -> None:
    gate = Gate()
    log = opened(tmp_path, gate.run)
    lease = acquired(log)
    log.append(lease, [new()])
    gate.is_shut = True
    writer = gevent.spawn(log.append, lease, [new()])
    wait_for(lambda: gate.entered)
    assert log.heads(["u:1"])["u:1"].head == 1
    gate.open()
    assert writer.get() == stored(2)
    assert log.heads(["u:1"])["u:1"].head == 2
    log.close()
    gate.close()


def test_a_caller_that_is_killed_leaves_its_batch_unsettled(tmp_path: Path) -> None:
    gate = Gate()
    log = opened(tmp_path, factory=gate.before_commit())
    lease = acquired(log)
    gate.is_shut = True
    writer = gevent.spawn(log.append, lease, [new()])
    wait_for(lambda: gate.entered)
    writer.kill()
    with pytest.raises(Unknown):
        log.append(lease, [new()])
    settled = gevent.spawn(log.settle, lease, [new()])
    gevent.sleep(0)
    gate.open()
    assert settled.get() == stored(1)
    assert log.append(lease, [new()]) == stored(2)
    log.close()
    gate.close()


def test_a_caller_that_is_killed_before_a_thread_was_free(tmp_path: Path) -> None:
    late: list[Callable[[], object]] = []

    def no_thread(job: Callable[[], T]) -> T:
        if late:
            return job()
        late.append(job)
        raise gevent.GreenletExit

    log = opened(tmp_path, direct)
    lease = acquired(log)
    log.close()
    log = opened(tmp_path, no_thread)
    with pytest.raises(gevent.GreenletExit):
        log.append(lease, [new()])
    assert log.settle(lease, [new()]) is None
    assert late[0]() == ([], None)
    assert log.append(lease, [new()]) == stored(1)
    log.close()


def test_turns_are_handed_on_in_order_past_those_who_gave_up() -> None:
    turn, order = Turn(), []

    def take(name: str) -> None:
        with turn:
            order.append(name)
            gevent.sleep(0)

    with turn:
        waiting = {name: gevent.spawn(take, name) for name in "abcd"}
        gevent.sleep(0)
        waiting["b"].kill()
        waiting["a"].kill(block=False)  # and is handed the turn before it hears of that
    with turn:
        order.append("last")
    gevent.joinall(list(waiting.values()))
    assert order == ["c", "d", "last"]


def test_many_callers_at_once(tmp_path: Path) -> None:
    log = opened(tmp_path)
    lease = acquired(log)
    answers: list[Appended] = []

    def publisher(number: int) -> None:
        for i in range(20):
            answers.extend(log.append(lease, [new("r:1", f"{number} {i}"), new(f"u:{number}", str(i))])[:1])
            log.read("r:1", 0, 5, 5, 1 << 20, NOW)
            log.heads([f"u:{number}", f"u:{i}", f"r:{number} {i}"])
            if i % 5 == 0:
                log.trim(lease, rules(count=10), NOW + i * 10_000, FOR_EVER, 50)

    gevent.joinall([gevent.spawn(publisher, number) for number in range(20)], raise_error=True)
    assert sorted(a.offsets[0] for a in answers) == list(range(1, 401))
    assert log.heads(["r:1"])["r:1"].head == 400
    assert [h.head for h in log.heads([f"u:{n}" for n in range(20)]).values()] == [20] * 20
    log.close()


def test_streams_that_the_cache_forgets(tmp_path: Path) -> None:
    log = opened(tmp_path)
    lease = acquired(log)
    log._standings = Standings(most=10)
    streams = [f"r:{i}" for i in range(50)]
    for offset in range(1, 6):
        for at in range(0, 50, 7):
            log.append(lease, [told(s, offset) for s in streams[at : at + 7]])
            assert len(log._standings._known) <= 10
    assert [h.head for h in log.heads(streams).values()] == [5] * 50
    assert len(log._standings._known) <= 10
    assert all(check_told(log, stream) == (0, 5) for stream in streams)
    log.close()


def test_a_commit_during_a_look_at_the_disk_wins(tmp_path: Path) -> None:
    gate = Gate()
    log = opened(tmp_path, gate.run)
    lease = acquired(log)
    log._standings = Standings(most=1)
    log.append(lease, [new("u:1"), new("u:2")])
    log.append(lease, [new("u:3")])
    read_job = log._reader.run

    def late(job: Callable[[sqlite3.Connection], T]) -> T:
        result = read_job(job)
        gate.is_shut = False
        log.append(lease, [new("u:1"), new("u:4"), new("u:5")])
        return result

    log._reader.run = late  # type: ignore[method-assign]
    assert log.heads(["u:1", "u:2"])["u:1"].head == 2
    log._reader.run = read_job  # type: ignore[method-assign]
    assert log.append(lease, [new("u:1")]) == stored(3)
    log.close()
    gate.close()


def test_bodies_and_keys_leave_nothing_behind(tmp_path: Path) -> None:
    log = opened(tmp_path, direct)
    lease = acquired(log)
    streams = [f"r:{i}" for i in range(20)]
    for i in range(10):
        log.append(lease, [many(f"{i}", *streams), new("u:1", f"x{i}")])
    for i in range(10):
        log.trim(lease, rules(count=0), NOW + i * 60_000, FOR_EVER, 1_000)
    tables = ("records", "pushes", "shared", "keys")
    counts = log._reader.run(lambda c: [c.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables])
    assert counts == [0, 0, 0, 0]
    assert log.append(lease, [new("r:3")]) == stored(11)
    log.close()


def test_the_wal_stays_small(tmp_path: Path) -> None:
    log = opened(tmp_path)
    lease = acquired(log)
    size = 0
    for i in range(1, 1_200):
        log.append(lease, [told("r:1", i, 20_000)])
        log.read("r:1", i - 1, i, 1, 1, NOW)
        size = max(size, (tmp_path / "log.db-wal").stat().st_size)
    assert size < 8 << 20
    log.close()


def test_what_sqlite_remembers_of_cursors_goes() -> None:
    """Each of them may hold a MiB of a router's memory."""
    connection = sqlite3.connect(":memory:")
    for _ in range(CURSORS // 2):
        connection.execute("SELECT 1")
    before = remembered(connection)
    assert len(before) == CURSORS // 2
    forget_cursors(connection)
    assert not {id(one) for one in before} & {id(one) for one in remembered(connection)}
    connection.close()


def test_a_log_that_is_tended_lets_go_of_them(tmp_path: Path) -> None:
    clock = Clock()
    log = opened(tmp_path, direct, clock=clock)
    lease = acquired(log)
    log.append(lease, [told("u:1", 1)])
    connections = [log._reader._connection, log._writer._worker._connection]
    for connection in connections:
        connection.execute("SELECT 1")
    before = {id(one): one for connection in connections for one in remembered(connection)}
    assert before
    clock.now += 1
    log.trim(lease, rules(count=50), NOW, FOR_EVER, 10)
    assert not before.keys() & {id(one) for connection in connections for one in remembered(connection)}
    log.close()


def remembered(connection: sqlite3.Connection) -> list[Any]:
    """What it has in lists: weak references to its cursors."""
    return [one for found in gc.get_referents(connection) if isinstance(found, list) for one in found]

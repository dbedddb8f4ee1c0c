from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import gevent
import pytest
from hypothesis import settings

from tests.unit.nodes.router.log.contract import FOR_EVER, KEY_WINDOW_S, NOW, Contract, new, rules
from tests.unit.nodes.router.log.model import LogMachine
from tests.unit.nodes.router.log.sqlite_support import direct, opened
from zim.nodes.router.log import Backlog, Lease, Log, Trimmed
from zim.nodes.router.log.pace import AT_ONCE, Pace
from zim.nodes.router.log.sqlite.opening import FILE
from zim.nodes.router.log.standings import Overfull

T = TypeVar("T")


class TestSqlite(Contract):
    folder: Path
    current: Log

    def reopen(self, log: Log) -> Log:
        self.current.close()
        self.current = opened(self.folder)
        return self.current

    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[Log]:
        self.folder = tmp_path
        self.current = opened(tmp_path)
        yield self.current
        self.current.close()

    def test_keys_past_their_window_take_no_room(self, log: Log, lease: Lease) -> None:
        """A trim that says that there is no more has left none."""
        for part in range(9):
            log.append(lease, [new(push_id=f"{part} {i}", digest=b"1") for i in range(100)])
        late = NOW + 2 * int(KEY_WINDOW_S * 1000)
        while log.trim(lease, rules(), late, 0, 100).has_more:
            pass
        with closing(sqlite3.connect(self.folder / FILE)) as found:
            assert found.execute("SELECT count(*) FROM keys").fetchone() == (0,)

    def test_trimming_is_faster_than_appends_of_any_size(self, tmp_path: Path) -> None:
        """Appends are made as fast as the log takes them, of more records than a step takes at least."""
        (folder := tmp_path / "busy").mkdir()
        log = opened(folder, _switching)
        lease, sizes = log.acquire("router-1"), [3_000, 200, 1_000, 40, 5_000] * 6
        backlogs: list[int] = []

        def append() -> None:
            for number, size in enumerate(sizes):
                keyed = [new(f"u:{i % 150}", f"{number} {i}", digest=b"1", at=NOW + number) for i in range(size)]
                log.append(lease, keyed)
                backlogs.append(log.backlog.records)

        log.trim(lease, rules(count=10), NOW, FOR_EVER, 1)
        appending, went = gevent.spawn(append), 0
        while not appending.ready():
            went += log.trim(lease, rules(count=10), NOW + 100, FOR_EVER, 10_000).records
            gevent.sleep(0)
        appending.get()
        assert max(backlogs) <= 5 * max(sizes)
        assert went >= sum(sizes) - 150 * 26 - 5 * max(sizes)
        while log.trim(lease, rules(count=10), NOW + 60_000, FOR_EVER, 10_000).has_more:
            pass
        assert log.backlog == Backlog(0, 0)
        assert {log.heads([f"u:{i}"])[f"u:{i}"].floor for i in range(150)} != {0}
        log.close()

    def test_the_backlog(self, log: Log, lease: Lease) -> None:
        """What is too many is known from the appends, what is too old from the sweep; keys from their times."""
        assert log.backlog == Backlog(0, 0)
        for part in range(4):
            log.append(lease, [new(push_id=f"{part} {i}", digest=b"1", at=NOW + part) for i in range(100)])
        log.trim(lease, rules(count=1_000), NOW + 9, 0, 1)
        log.append(lease, [new(f"u:{i}", f"last {i}", at=NOW + 9) for i in range(2)])
        log.trim(lease, rules(count=100), NOW + 100_000, 0, 1)  # nothing is old enough to go
        log.append(lease, [new("u:1", "at last", at=NOW + 9)])
        assert log.backlog == Backlog(302, 0)
        late = NOW + 2 * int(KEY_WINDOW_S * 1000)
        trimmed = log.trim(lease, rules(count=0), late, FOR_EVER, 50)
        assert (trimmed, log.backlog.keys) == (Trimmed(50, 50, has_more=True), 50)  # of the 100 that are new
        while trimmed.has_more:
            trimmed = log.trim(lease, rules(count=0), late, FOR_EVER, 100)
        assert log.backlog == Backlog(0, 0)

    def test_the_backlog_of_what_is_too_old(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new("u:1", str(i), at=NOW + i * 1_000) for i in range(1_000)])
        trimmed = log.trim(lease, rules(age_s=10), NOW + 700_000, FOR_EVER, 100)
        assert trimmed == Trimmed(100, 0, has_more=True)
        assert log.backlog == Backlog(590, 0)
        while trimmed.has_more:
            trimmed = log.trim(lease, rules(age_s=10), NOW + 700_000, FOR_EVER, 100)
        assert log.backlog == Backlog(0, 0)
        assert self.floor_and_head(log, "u:1") == (690, 1_000)


def _switching(job: Callable[[], T]) -> T:
    """No thread, but others get their turn as if there was one."""
    gevent.sleep(0)
    return job()


def test_the_pace_of_trimming() -> None:
    """Each step takes twice what was written, in pieces that are no longer than twice the largest append."""
    pace = Pace()
    assert pace.step() == AT_ONCE
    pace.wrote(300)
    pace.wrote(400)
    assert [pace.step(), pace.step()] == [1_400, AT_ONCE]
    pace.wrote(5_000)
    pace.wrote(1_000)
    assert [pace.step() for _ in range(3)] == [10_000, 2_000, AT_ONCE]
    for _ in range(100):
        pace.wrote(100)
    assert pace.step() == 2_048


def test_streams_that_are_overfull_wait_until_their_records_may_go() -> None:
    found = Overfull()
    found.put("a", 5, 100)
    found.put("b", 7, 200)
    found.put("a", 9, 300)
    assert (found.records, found.has_due(100), found.has_due(101)) == (16, False, True)
    assert "a" in found
    assert found.take(10, 150) == {"a": 9}
    assert (found.records, found.take(10, 150)) == (7, {})
    found.put("a", 1, 300)
    assert found.take(1, 1_000) == {"b": 7}
    found.drop("a")
    assert (found.records, found.has_due(1_000)) == (0, False)


class _Machine(LogMachine):
    def make(self) -> Log:
        self.folder = tempfile.TemporaryDirectory()
        return opened(Path(self.folder.name), direct)

    def reopen(self) -> Log:
        self.log.close()
        return opened(Path(self.folder.name), direct)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            self.folder.cleanup()


TestModel = pytest.mark.slow(_Machine.TestCase)
TestModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

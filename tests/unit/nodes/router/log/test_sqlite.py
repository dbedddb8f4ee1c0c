from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings

from tests.unit.nodes.router.log.contract import KEY_WINDOW_S, NOW, Contract, new, rules
from tests.unit.nodes.router.log.model import LogMachine
from tests.unit.nodes.router.log.sqlite_support import direct, opened
from zim.nodes.router.log import Lease, Log
from zim.nodes.router.log.sqlite.opening import FILE


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
        while log.trim(lease, rules(), late, 0, 100) >= 100:
            pass
        with closing(sqlite3.connect(self.folder / FILE)) as found:
            assert found.execute("SELECT count(*) FROM keys").fetchone() == (0,)


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

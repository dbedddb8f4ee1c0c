from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.unit.nodes.router.log.contract import Contract
from tests.unit.nodes.router.log.model import LogMachine
from tests.unit.nodes.router.log.sqlite_support import direct, opened
from zim.nodes.router.log import Log


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


TestModel = _Machine.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

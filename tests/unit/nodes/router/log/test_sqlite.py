from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import gevent
import pytest
from hypothesis import settings

from tests.unit.nodes.router.log.contract import KEY_WINDOW_S, Contract
from tests.unit.nodes.router.log.model import LogMachine
from zim.nodes.router.log import Log
from zim.nodes.router.log.sqlite import SqliteLog

T = TypeVar("T")


def direct(job: Callable[[], T]) -> T:
    return job()


def in_thread(job: Callable[[], T]) -> T:
    result: T = gevent.get_hub().threadpool.apply(job)
    return result


def opened(folder: Path) -> SqliteLog:
    return SqliteLog.open(folder, ["router-1", "router-2"], in_thread, key_window_s=KEY_WINDOW_S, ballast_bytes=4096)


class TestSqlite(Contract):
    folder: Path

    def reopen(self, log: Log) -> Log:
        log.close()
        return opened(self.folder)

    @pytest.fixture
    def log(self, tmp_path: Path) -> Log:
        self.folder = tmp_path
        return opened(tmp_path)


class _Machine(LogMachine):
    def make(self) -> Log:
        self.folder = tempfile.TemporaryDirectory()
        return self.open()

    def open(self) -> Log:
        return SqliteLog.open(
            Path(self.folder.name), ["router-1"], direct, key_window_s=KEY_WINDOW_S, ballast_bytes=4096
        )

    def reopen(self) -> Log:
        self.log.close()
        return self.open()

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            self.folder.cleanup()


TestModel = _Machine.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

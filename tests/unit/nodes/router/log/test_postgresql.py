"""The log on PostgreSQL does what every log does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from tests.unit.nodes.router.log.contract import Contract
from tests.unit.nodes.router.log.model import LogMachine
from tests.unit.nodes.router.log.postgresql_support import Alone, database, server
from zim.nodes.router.log import Log
from zim.topology import LogPlace


class TestPostgres(Contract):
    where: LogPlace
    current: Alone

    def reopen(self, log: Log) -> Log:
        self.current.close()
        self.current = Alone(self.where)
        return self.current.log

    @pytest.fixture
    def log(self) -> Iterator[Log]:
        with database() as self.where:
            self.current = Alone(self.where)
            yield self.current.log
            self.current.close()


class _Machine(LogMachine):
    def make(self) -> Log:
        self.stack = ExitStack()
        self.where = self.stack.enter_context(database())
        self.current = Alone(self.where)
        return self.current.log

    def reopen(self) -> Log:
        self.current.close()
        self.current = Alone(self.where)
        return self.current.log

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.current.close()
            self.stack.close()


@pytest.fixture(autouse=True)
def _needs_a_server() -> None:
    server()


TestModel = pytest.mark.slow(_Machine.TestCase)
TestModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

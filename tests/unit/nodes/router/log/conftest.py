"""What was started for all tests of a process ends with it."""

from __future__ import annotations

from tests.unit.nodes.router.log import postgresql_support


def pytest_sessionfinish() -> None:
    postgresql_support.stop()

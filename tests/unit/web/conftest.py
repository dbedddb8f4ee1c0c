from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.unit.web.support import Recorder, serving
from zim.web.server import HttpServer


@pytest.fixture
def fabric() -> Recorder:
    return Recorder()


@pytest.fixture
def server(fabric: Recorder) -> Iterator[HttpServer]:
    with serving(fabric) as server:
        yield server


@pytest.fixture
def hasty(fabric: Recorder) -> Iterator[HttpServer]:
    """A server that waits only briefly for its clients."""
    with serving(fabric, timeout_s=0.3, idle_s=2.0) as server:
        yield server


@pytest.fixture
def quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is printed at the operator, nor logged above debug."""
    yield
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []

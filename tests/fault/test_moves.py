"""A router is added, and another one drained, while people are connected and pushes come: see tests.fault.moves."""

from __future__ import annotations

import pytest

from tests.fault.moves import run
from tests.postgresql import require


def test_nobody_notices_that_routers_come_and_go(capsys: pytest.CaptureFixture[str]) -> None:
    require()
    assert run("grow", clients=100, rate=50.0)
    said = capsys.readouterr().out
    assert "router-4, added" in said
    assert "failed 0, gaps 0" in said
    assert "reconnects a client: 0.000" in said

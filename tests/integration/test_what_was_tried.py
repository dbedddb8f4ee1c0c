"""docs/security.md says how much was tried: as much as the tables have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS
from tests.fuzz.test_fuzz import INPUTS
from tests.integration.autobahn_cases import CASES
from tests.integration.forgeries import LINKS, absurd, broken
from tests.integration.hostile_http import SMUGGLED, UPGRADES
from tests.integration.test_hostile_http import OVERSIZED, SLOW, STORMS

PAGE = (Path(__file__).parents[2] / "docs/security.md").read_text()


@pytest.mark.parametrize(
    ("what", "count"),
    [
        ("Autobahn testsuite", len(CASES)),
        ("HTTP that two servers may read", len(SMUGGLED)),
        ("WebSocket upgrades that are none", len(UPGRADES)),
        ("what is too large", len(OVERSIZED)),
        ("a byte at a time", len(SLOW)),
        ("connections that are reset", len(STORMS)),
        ("messages between nodes, and to", sum(len(some) for link in LINKS.values() for some in broken(link).values())),
        ("the same with each field", sum(1 for link in LINKS.values() for _ in absurd(link))),
        ("any bytes into every parser", len(TARGETS)),
    ],
)
def test_the_numbers_are_true(what: str, count: int) -> None:
    (row,) = (line for line in PAGE.splitlines() if line.startswith("|") and what in line)
    found = re.search(r"[0-9][0-9,]*", row.split("|")[2])
    assert found
    assert int(found[0].replace(",", "")) == count


def test_so_is_that_of_inputs() -> None:
    assert f"{len(TARGETS)} parsers, {INPUTS:,} inputs each" in PAGE

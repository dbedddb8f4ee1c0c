"""Seeds of simulated weather over zim's own deciding code. `make simulate SEEDS=…` plays more of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.simulation.plans import PROFILES, load, make_plan, run, save, shrink

SEEDS = int(os.environ.get("SEEDS", "20"))
PART = 20  # seeds of one test, so that several workers share them


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
@pytest.mark.parametrize("profile", PROFILES)
def test_no_seed_breaks_a_promise(profile: str, first: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    every = 16 if profile == "huge" else 1  # its seeds take some seconds each
    for seed in range(first, min(first + PART, SEEDS), every):
        found = run(seed, make_plan(seed, profile))
        if found:
            less_seed, plan = shrink(seed, make_plan(seed, profile))
            steps = "\n".join(map(str, plan))
            pytest.fail(f"seed {seed} of {profile}: {found}\nshrunk, with seed {less_seed}:\n{steps}")


def test_a_schedule_can_be_saved_and_replayed(tmp_path: Path) -> None:
    for profile in PROFILES:
        plan = make_plan(3, profile)
        save(tmp_path / "plan.json", 3, plan)
        assert load(tmp_path / "plan.json") == (3, plan)


def test_a_seed_replays_exactly(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.CRITICAL)
    traces = []
    for _ in range(2):
        assert run(7, make_plan(7, "storm"), trace=True) == ""
        traces.append(capsys.readouterr().out)
    assert traces[0] == traces[1]
    assert len(traces[0].splitlines()) > 300

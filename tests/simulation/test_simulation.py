"""Seeds of simulated weather over zim's own deciding code. A red one replays: `run(seed, FAULTS[profile])`."""

from __future__ import annotations

import logging
import os

import pytest

from tests.simulation.world import run

FAULTS = {
    "calm": ("move",),
    "loss": ("lose", "cut"),
    "crash": ("kill_comet", "kill_job", "kill_router", "cut", "move"),
    "pause": ("stop_node", "stop_node", "lose"),
    "storm": ("lose", "cut", "kill_comet", "kill_job", "kill_router", "stop_node", "move"),
}
SEEDS = int(os.environ.get("SEEDS", "60"))


@pytest.mark.parametrize("profile", FAULTS)
def test_no_seed_breaks_a_promise(profile: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    for seed in range(SEEDS):
        try:
            run(seed, FAULTS[profile])
        except BaseException as e:
            e.add_note(f"seed {seed} of {profile}")
            raise

"""Each rule of the design, broken on purpose, must turn a seed red: a simulator that notices nothing proves nothing."""

from __future__ import annotations

import logging

import pytest

from tests.simulation.plans import make_plan, run
from tests.simulation.rules import RULES

SEEDS = 600


@pytest.mark.timeout(400)  # on a busy machine the rarest one takes minutes
@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_noticed(rule: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    owner, name, broken, profiles = RULES[rule]
    monkeypatch.setattr(owner, name, broken)
    for seed in range(SEEDS):
        for profile in profiles.split(","):
            if run(seed, make_plan(seed, profile)):
                return
    pytest.fail(f"{SEEDS} seeds of {profiles} noticed nothing")

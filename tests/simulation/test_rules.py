"""Each rule of the design, broken on purpose, must turn a seed red: a simulator that notices nothing proves nothing."""

from __future__ import annotations

import logging

import pytest

from tests.simulation.plans import make_plan, run
from tests.simulation.rules import RULES

SEEDS = 600

# Where the search begins, for what is rare: the seed that had noticed it when this was written.
FIRST = {
    "who registers is looked at": 125,
    "a jump waits for the pass": 43,
    "who joins very many rooms asks for some at a time": 2,
    "orders outlive a lease": 72,
    "nothing is kept in memory by who may not be the owner": 43,
    "a client may be ahead of its comet": 13,
    "a shard that could not be opened is taken anew": 33,
    "an attempt without an answer may be stored": 36,
    "what is admitted counts as behind": 31,
    "a jump aims resumes later": 14,
    "a router speaks for its own streams alone": 24,
    "memory cannot tell what an earlier run had": 19,
    "a read is asked until it is answered": 8,
    "who is drained waits until routers know that all are gone": 35,
    "answers are matched by number": 11,
    "a history is of who may see it": 22,
    "the position moves before the pass": 13,
}


@pytest.mark.timeout(400)  # on a busy machine the rarest one takes minutes
@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_noticed(rule: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    owner, name, broken, profiles = RULES[rule]
    monkeypatch.setattr(owner, name, broken)
    first = FIRST.get(rule, 0)
    for seed in range(first, first + SEEDS):
        for profile in profiles.split(","):
            if run(seed, make_plan(seed, profile)):
                return
    pytest.fail(f"{SEEDS} seeds of {profiles} noticed nothing")


def test_searches_are_of_rules() -> None:
    assert RULES.keys() >= FIRST.keys()

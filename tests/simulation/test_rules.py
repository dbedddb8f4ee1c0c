"""Each of these rules, broken on purpose, must turn a seed red: a simulator that notices nothing proves nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.simulation.test_simulation import FAULTS
from tests.simulation.world import Violation, run
from zim.nodes.comet.feed import Link
from zim.nodes.comet.hub import Hub
from zim.nodes.comet.views import View
from zim.nodes.router.shard import Shard

SEEDS = 300


def forget_handled(link: Link, entries: list[Any]) -> None:
    """Nothing is ever confirmed."""


def jump(view: View, head: int) -> list[Any]:
    """Moves on to the head, and reads nothing of what came before."""
    view.position = head
    return view.catchups


def take_any(link: Link, max_bytes: int) -> list[Any]:
    """Hands on what is there, whatever is missing before it."""
    found = [link._held.pop(n) for n in sorted(link._held)] if not link.is_registering else []
    link.taken = max([link.taken, *(e.n for e in found)])
    link._held_bytes = 0
    return found


def start_at_once(link: Link) -> bool:
    """Does not wait for the answers of a registration."""
    was, link.is_registering = link.is_registering, False
    if was:
        link.taken = link.handled = link._made = link._base
    return was


def do_nothing(*args: Any) -> Any:
    """Nothing."""


RULES: dict[str, tuple[Any, str, Any, str]] = {
    "missing entries are fetched": (Link, "_is_missing", lambda link: False, "loss"),
    "entries are handled in order": (Link, "take", take_any, "loss"),
    "entries that are handled are confirmed": (Link, "passed", forget_handled, "calm"),
    "no entry while registering": (Link, "complete_registration", start_at_once, "crash"),
    "registration compares heads": (View, "catch_up", jump, "pause"),
    "another epoch is read from its start": (View, "start_over", do_nothing, "crash"),
    "a catch-up asks until it is answered": (Hub, "records", do_nothing, "pause"),
    "leases end": (Shard, "tick", lambda shard, now: [*shard._end_rebuilding(now)], "crash"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_noticed(rule: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    owner, name, broken, profile = RULES[rule]
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(owner, name, broken)
    for seed in range(SEEDS):
        try:
            run(seed, FAULTS[profile])
        except (Violation, KeyError, AssertionError):
            return
    pytest.fail(f"{SEEDS} seeds of {profile} noticed nothing")

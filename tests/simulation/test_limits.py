"""Small limits are reached: what has never happened in a simulation is not tested by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.plans import make_plan, run
from zim.nodes.comet.feed import Link
from zim.nodes.comet.outbox import Outbox
from zim.nodes.comet.passes import Passes
from zim.nodes.comet.views import Catchup
from zim.nodes.logic.quotas import Quotas
from zim.nodes.router.intake import Intake
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.questions import Questions
from zim.nodes.router.stream_limit import StreamLimit

# What happens there, in which profile, and how it is seen: whether after a call of that method something holds.
REACHED: dict[str, tuple[str, Any, str, Callable[[Any], Any]]] = {
    "a catch-up's queue runs over": ("slow", Catchup, "put", lambda it: not it.queue),
    "entries behind a hole are let go": ("loss", Link, "tick", lambda it: it.dropped),
    "a router is away until it has to be told all anew": ("crash", Link, "_give_up", lambda it: True),
    "reads wait for other reads": ("crash", Passes, "read", lambda it: any(it._later.values())),
    "pushes that wait for a comet are refused": ("slow", Intake, "publish", lambda it: it.dropped),
    "questions find no room": ("crash", Questions, "tell_heads", lambda it: it.changes.dropped),
    "a live-only stream is forgotten": ("calm", MemoryLog, "_drop_book", lambda it: True),
    "a stream gets too much": ("limits", StreamLimit, "over", lambda it: it.refusals.by_limit["pushes_per_stream"]),
    "a backend pushes too much": ("limits", Quotas, "ask", lambda it: it.refusals.by_limit["pushes_per_key"]),
    "a slow goim client loses its oldest": ("slow", Outbox, "put_newest", lambda it: True),
}

# Where the search begins, for what is rare: the seed that had it when this was written.
FIRST = {"a slow goim client loses its oldest": 173}


@pytest.mark.parametrize("what", REACHED)
def test_it_happens(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, owner, name, holds = REACHED[what]
    original, seen = getattr(owner, name), []

    def look(it: Any, *args: Any, **kwargs: Any) -> Any:
        found = original(it, *args, **kwargs)
        if holds(it):
            seen.append(found)
        return found

    monkeypatch.setattr(owner, name, look)
    first = FIRST.get(what, 0)
    for seed in range(first, first + 200):
        assert run(seed, make_plan(seed, profile)) == ""
        if seen:
            return
    pytest.fail(f"200 seeds of {profile} do not reach it")

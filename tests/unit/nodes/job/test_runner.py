"""A job's runner: an entry for each comet that it knows."""

from __future__ import annotations

from zim.nodes.effects import Send
from zim.nodes.job.runner import JobRunner
from zim.protocol.messages import Entry, Push, Target, entry_bytes


def test_a_push_becomes_an_entry_for_each_comet() -> None:
    runner = JobRunner(["comet-1", "comet-2"])
    targets = [Target(f"comet-{n}", n, 3, 10 + n, [("u:1", n)]) for n in (1, 2, 3)]
    push = Push("router-1", "id", 5, b"body", targets, 90, ("1_1",))
    effects = runner.on_messages([push], 0.0)
    entries = [
        Entry("router-1", f"comet-{n}", n, 3, 10 + n, "id", 5, b"body", [("u:1", n)], 90, ("1_1",)) for n in (1, 2)
    ]
    assert effects == [Send(entry.comet, entry, entry_bytes(entry.body, entry.items, entry.only)) for entry in entries]
    assert (runner.pushes, runner.entries) == (1, 2)

"""Effects are performed in order, and what a step asks for meanwhile comes after them."""

from __future__ import annotations

import pytest

from zim.nodes.effects import INFO, Effect, Note
from zim.nodes.performer import Performer


def note(event: str) -> Note:
    return Note(INFO, event, {})


class Talker(Performer):
    """Notes what it does. What it does may ask for more."""

    def __init__(self, more: dict[str, list[str]]) -> None:
        super().__init__()
        self.more, self.done = more, list[str]()
        self.depth = self.deepest = 0

    def perform_one(self, effect: Effect) -> None:
        assert isinstance(effect, Note)
        self.depth += 1
        self.deepest = max(self.depth, self.deepest)
        self.done.append(effect.event)
        if effect.event == "fails":
            raise RuntimeError
        self.perform([note(event) for event in self.more.get(effect.event, [])])
        self.depth -= 1


def test_nothing_runs_inside_itself() -> None:
    talker = Talker({"a": ["a1", "a2"], "a1": ["a11"]})
    talker.perform([note("a"), note("b")])
    assert talker.done == ["a", "b", "a1", "a2", "a11"]
    assert talker.deepest == 1


def test_after_a_failure_it_goes_on() -> None:
    talker = Talker({})
    with pytest.raises(RuntimeError):
        talker.perform([note("fails"), note("b")])
    talker.perform([note("c")])
    assert talker.done == ["fails", "b", "c"]

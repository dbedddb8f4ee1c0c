"""How one node of `zim up` is: what it does, since when, and what it has told of itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["starting", "ready", "draining", "drained", "down", "given up"]


@dataclass
class Standing:
    """Of one node.

    Attributes:
        state: what it does.
        since: from when on; seconds of the wall clock, 0 before anything.
        starts: how often its process was started; pid: the last one.
        drains: how often it has ended because it was drained.
        why: it is in this state; "" where that needs no words.
        told: its last answer to a question about it, of this process.
        is_asked: a question is not answered yet.
    """

    name: str
    kind: str
    state: State = "starting"
    since: float = 0.0
    starts: int = 0
    drains: int = 0
    pid: int = 0
    why: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)
    is_asked: bool = False

    def move(self, state: State, now: float, why: str = "") -> None:
        """It does something else. now: wall seconds."""
        self.state, self.since, self.why = state, now, why

    def began(self, pid: int) -> None:
        """Its process has started."""
        self.starts += 1
        self.pid, self.told, self.is_asked = pid, {}, False

    @property
    def restarts(self) -> int:
        """How often it was started again because it had died."""
        return max(0, self.starts - self.drains - 1)

    @property
    def runs(self) -> bool:
        """Its process can be asked."""
        return self.state in ("ready", "draining")

    @property
    def missing(self) -> list[str]:
        """What it waits for, as it said last."""
        found = self.told.get("missing", [])
        return [str(one) for one in found] if isinstance(found, list) else []

    def number(self, key: str) -> float:
        """A number of what it told; 0 if it did not."""
        found = self.told.get(key, 0)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else 0

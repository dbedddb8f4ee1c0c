"""A restart of one node after the other, while the fabric serves: who is next, when, and when to stop. Pure.

Routers come first, for who knows a new word must be there before it is said; then jobs and logics; comets last, the one
with the fewest clients first. Clients of a comet go to those that were restarted already, so that nobody is moved
twice but those of the first one.

    whole ─drain─► draining ─it has ended─► gone ─start─► starting ─it is ready, and misses nothing─► whole …
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from zim.supervisor.drains import comet_loads, missed, shares
from zim.supervisor.standing import Standing

ORDER = ("router", "job", "logic", "comet")
WHOLE_S = 60.0  # for all others to be ready
BACK_S = 60.0  # for a node to come back
EXCUSED_S = 3.0  # after a pause that was agreed to: some are told late of what they missed in it
STUCK_S = 60.0  # without a client that leaves, and without an end


@dataclass(frozen=True)
class DrainNode:
    """A node is to be drained. shares: where its clients go, see DrainPlan; empty for all that is not a comet."""

    name: str
    shares: Mapping[str, float]


@dataclass(frozen=True)
class StartNode:
    """A node is to come back."""

    name: str


@dataclass(frozen=True)
class Say:
    """A line for the operator."""

    text: str


Action = DrainNode | StartNode | Say
Step = Literal["whole", "draining", "starting", "over"]


class Rolling:
    """One of them.

    Attributes:
        left: those to come, in the order of their kinds.
        done: those that are back.
        name: of the node that is away now; "" for none.
        why: it has stopped before the end; "" if it has not.
    """

    def __init__(self, nodes: Sequence[tuple[str, str]], pausing: Sequence[str], now: float) -> None:
        """
        Args:
            nodes: names and kinds of those that are to be restarted.
            pausing: of these, those without which publishers are refused, as has been agreed to.
            now: monotonic seconds, as everywhere here.
        """
        self.left = [name for kind in ORDER for name, of in nodes if of == kind]
        self.done: list[str] = []
        self.name, self.why = "", ""
        self._pausing = frozenset(pausing)
        self._step: Step = "whole"
        self._since = now
        self._clients = -1
        self._starts = 0
        self._failed: dict[tuple[str, int], int] = {}  # by logic and process: pushes that it has not taken
        self._is_wanted = True
        self._excused_until = 0.0

    @property
    def is_over(self) -> bool:
        """There is nothing left to do."""
        return self._step == "over"

    def stop(self) -> None:
        """No other node is begun with. One that is away comes back first."""
        self._is_wanted = False

    def step(self, seen: Mapping[str, Standing], now: float) -> list[Action]:
        """What is to be done now. seen: how all nodes are, fresh."""
        if self.is_over:
            return []
        failed = self._newly_failed(seen, now)
        if trouble := self._trouble(seen, failed):
            return self._give_up(trouble, seen)
        match self._step:
            case "whole":
                return self._begin(seen, now)
            case "draining":
                return self._await_end(seen[self.name], now)
            case _:
                return self._await_return(seen, now)

    # -- what can go wrong

    def _newly_failed(self, seen: Mapping[str, Standing], now: float) -> int:
        """Pushes that publishers were refused since the last look, though nobody had agreed to that."""
        found = {(one.name, one.pid): int(one.number("failed")) for one in seen.values() if one.kind == "logic"}
        fresh = sum(failed - self._failed.get(key, 0) for key, failed in found.items() if key in self._failed)
        new = sum(failed for key, failed in found.items() if key not in self._failed) if self._failed else 0
        self._failed |= found
        return 0 if self.name in self._pausing or now < self._excused_until else fresh + new

    def _trouble(self, seen: Mapping[str, Standing], failed: int) -> str:
        for one in seen.values():
            if one.name != self.name and one.state in ("down", "given up"):
                return f"{one.name} is {one.state}" + (f" ({one.why})" if one.why else "")
        if failed:
            return f"publishers were told of {failed} failed {'push' if failed == 1 else 'pushes'} (503 or 504)"
        return ""

    def _give_up(self, why: str, seen: Mapping[str, Standing]) -> list[Action]:
        """Nobody is left behind: who is away is called back."""
        self._step, self.why = "over", why
        found: list[Action] = []
        if self.name and seen[self.name].state in ("draining", "drained"):
            found = [StartNode(self.name), Say(f"{self.name} is started again")]
        return [*found, Say(f"stopped: {why}")]

    # -- step by step

    def _begin(self, seen: Mapping[str, Standing], now: float) -> list[Action]:
        if not self.left or not self._is_wanted:
            self._step = "over"
            if self.left:
                self.why = "as it was asked to"
                return [Say(f"stopped: {self.why}")]
            return [Say(f"all is new: {len(self.done)} restarted")]
        if now < self._excused_until:
            return []
        if late := _not_whole(seen):
            if now - self._since < WHOLE_S:
                return []
            return self._give_up(f"{late}, for {WHOLE_S:g} s", seen)
        self.name = self._next(seen)
        self.left.remove(self.name)
        one = seen[self.name]
        self._step, self._since, self._clients = "draining", now, -1
        where: dict[str, float] = {}
        if one.kind == "comet":
            loads = comet_loads(seen.values(), self.name)
            renewed = {name: load for name, load in loads.items() if name in self.done}
            where = shares(int(one.number("connections")), renewed or loads)
        return [Say(f"{self.name}: drains"), DrainNode(self.name, where)]

    def _next(self, seen: Mapping[str, Standing]) -> str:
        kind = seen[self.left[0]].kind
        alike = [name for name in self.left if seen[name].kind == kind]
        return min(alike, key=lambda name: seen[name].number("connections")) if kind == "comet" else alike[0]

    def _await_end(self, one: Standing, now: float) -> list[Action]:
        if one.state == "drained":
            self._step, self._since, self._starts = "starting", now, one.starts
            lost = [Say(f"{self.name}: {one.why}")] if one.why else []
            return [*lost, Say(f"{self.name}: starts"), StartNode(self.name)]
        clients = int(one.number("connections"))
        if clients != self._clients:
            self._clients, self._since = clients, now
        if now - self._since < STUCK_S:
            return []
        self._step, self.why = "over", f"{self.name} drains, and does not come to an end"
        return [Say(f"stopped: {self.why}; nothing was cut off")]

    def _await_return(self, seen: Mapping[str, Standing], now: float) -> list[Action]:
        one = seen[self.name]
        is_back = one.state == "ready" and one.starts > self._starts and bool(one.told)
        late = "" if is_back and not _not_whole(seen) else _not_whole(seen) or f"{self.name} is {one.state}"
        if not late:
            said = Say(f"{self.name}: is back, pid {one.pid}")
            self.done.append(self.name)
            if self.name in self._pausing:
                self._excused_until = now + EXCUSED_S
            self.name = ""
            self._step, self._since = "whole", now
            return [said]
        if one.state == "given up" or one.starts > self._starts + 2:
            return self._give_up(f"{self.name} does not start: {one.why}", seen)
        if now - self._since < BACK_S:
            return []
        return self._give_up(f"{self.name} is away for {BACK_S:g} s: {late}", seen)


def _not_whole(seen: Mapping[str, Standing]) -> str:
    """Who does not do all of its work, in words; "" if nobody. Who was drained before is not waited for."""
    for one in seen.values():
        if one.state == "drained":
            continue
        if one.state != "ready":
            return f"{one.name} is {one.state}"
        if found := missed(one, seen.values()):
            return f"{one.name}: {found[0]}"
        if one.told.get("comets") == 0:  # a router of a shared log is given shards once it hears comets
            return f"{one.name} hears no comet yet"
    return ""

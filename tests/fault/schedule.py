"""A seed → what is done to the fabric, and when. Pure: the same seed and the same nodes give the same list.

Faults overlap: a node may be cut off while another is killed. They differ in the time that it takes to notice them,
which is what the fabric's repairs turn on: kill -9 closes every socket at once, a stopped process keeps them open and
silent, a cut link breaks, a stalled one is silent in one direction or both, a delayed one is only late.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

NODES = ("router-1", "router-2", "logic-1", "logic-2", "job-1", "job-2", "comet-1", "comet-2", "comet-3")

Group = Literal["process", "link", "client", "fabric", "disk", "machine"]


class Kind(NamedTuple):
    """What can be done. group: to what; weight: how often it is drawn; text: for people."""

    group: Group
    weight: int
    text: str
    is_death: bool = False


KINDS = {
    "kill": Kind("process", 6, "kill -9", True),
    "twice": Kind("process", 2, "kill -9, and again while it comes back", True),
    "return": Kind("process", 2, "kill -9; as soon as it is back it, or a peer, again: while comets register", True),
    "term": Kind("process", 1, "SIGTERM", True),
    "stop": Kind("process", 5, "SIGSTOP, then SIGCONT"),
    "cut": Kind("link", 4, "the links that lead to it break"),
    "stall": Kind("link", 3, "they are silent"),
    "stall-in": Kind("link", 1, "nothing comes to it by them"),
    "stall-out": Kind("link", 1, "nothing comes back from it by them"),
    "pair-in": Kind("link", 2, "of those who call it one is not heard any more"),
    "pair-out": Kind("link", 2, "of those who call it one hears nothing any more"),
    "delay": Kind("link", 3, "all comes late by them"),
    "hop": Kind("client", 4, "says nothing, and connects elsewhere"),
    "drop": Kind("client", 3, "its connection is reset"),
    "leave": Kind("client", 2, "leaves a room, and comes back to it"),
    "freeze": Kind("client", 2, "stops reading"),
    "away": Kind("client", 2, "is away for longer than a short retention"),
    "rush": Kind("fabric", 1, "kill -9 of every comet at once: all clients come back at once"),
    "ctrl-z": Kind("fabric", 1, "SIGTSTP to `zim up`, as Ctrl-Z sends it; its nodes go on"),
    "sleep": Kind("fabric", 1, "SIGSTOP to all processes, as when a laptop is closed"),
    "unread": Kind("fabric", 2, "nobody reads the log"),
    "full": Kind("disk", 2, "the disk is full while a router is killed, and starts again"),
    "hang": Kind("disk", 2, "the disk stands still, again and again, for tenths of a second"),
    "off": Kind("machine", 2, "its power fails, and nobody hears a last word; later it comes back"),
    "island": Kind("machine", 2, "it is cut off from all others, and from clients"),
    "island-in": Kind("machine", 1, "nothing comes to it"),
    "island-out": Kind("machine", 1, "nothing comes from it"),
    "apart": Kind("machine", 2, "it and one other machine do not reach each other"),
    "apart-in": Kind("machine", 1, "nothing comes to it from one other"),
    "apart-out": Kind("machine", 1, "nothing comes from it to one other"),
    "bad": Kind("machine", 1, "what it says and hears is late, and a part of it lost"),
    "pause": Kind("machine", 1, "SIGSTOP to all on it, as when a virtual machine is moved"),
    "clock": Kind("machine", 1, "its clock is set some minutes on, or back; later it is right again"),
}

# Of a node that dies more often than this the supervisor makes others wait longer for its return.
REST_S = 14.0
RUSH_REST_S = 30.0  # and of a whole fabric, or machine


@dataclass(frozen=True)
class Operation:
    """One thing that is done.

    Attributes:
        at_s: seconds after the start.
        kind: of KINDS.
        target: the node; the client's number; the machine; `fabric` or `disk`.
        lasts_s: until it is undone; for twice and return, until the second kill.
    """

    at_s: float
    kind: str
    target: str
    lasts_s: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.2f} s" if self.lasts_s else ""
        return f"{self.at_s:7.2f} s  {self.kind} {self.target}{lasts}"


def schedule(
    seed: int,
    seconds: float,
    clients: int,
    nodes: Sequence[str] = NODES,
    without: Iterable[str] = (),
    every_s: float = 0.0,
    kills: float = 0.0,
    machines: Sequence[str] = (),
) -> list[Operation]:
    """Everything that is done in a run, in its order.

    Args:
        clients: how many there are, numbered from 0.
        nodes: those that exist.
        without: kinds of nodes (`router`) and of operations (`freeze`) that are spared.
        every_s: how far faults are apart; 0 for now close together, now far apart.
        kills: how often a minute a node is killed, beside the others; 0 for as it is drawn.
        machines: those that something is done to as a whole; none where the nodes are all on one.
    """
    spared = set(without)
    targets = [name for name in nodes if name.partition("-")[0] not in spared]
    drawn = {
        kind: of
        for kind, of in KINDS.items()
        if kind not in spared
        and {"client": clients, "fabric": nodes, "disk": nodes, "machine": machines}.get(of.group, targets)
    }
    deaths = {kind: of for kind, of in drawn.items() if of.is_death} if kills else {}
    others = {kind: of for kind, of in drawn.items() if kind not in deaths}
    made: list[Operation] = []
    maker = _Maker(random.Random(f"zim chaos {seed}"), targets, clients, machines)
    at = {"other": every_s or maker.rng.uniform(0.5, 1.5), "death": 60 / kills if deaths else seconds}
    while min(at.values()) < seconds:
        which = min(at, key=lambda name: at[name])
        kinds = deaths if which == "death" else others
        if kinds:
            made += maker.make(at[which], kinds)
        if which == "death":
            at[which] += 60 / kills
        elif every_s:
            at[which] += every_s
        else:
            at[which] += maker.rng.choice(
                (maker.rng.uniform(0.02, 0.2), maker.rng.uniform(0.3, 1.2), maker.rng.uniform(0.8, 2.5))
            )
    return made


class _Maker:
    """Draws operations. What is done already is not done again until it is undone, and what was killed may rest."""

    def __init__(self, rng: random.Random, targets: Sequence[str], clients: int, machines: Sequence[str]) -> None:
        self.rng = rng
        self._targets, self._clients, self._machines = targets, clients, machines
        self._rests_until: dict[str, float] = {}
        self._busy_until: dict[tuple[str, str], float] = {}

    def make(self, at: float, kinds: dict[str, Kind]) -> Iterator[Operation]:
        """One operation, or none: its target is not free."""
        rng = self.rng
        (kind,) = rng.choices(list(kinds), [of.weight for of in kinds.values()])
        group = kinds[kind].group
        target, lasts = self._target(group, at, kinds[kind].is_death), round(_length(kind, rng), 2)
        rests = {target} if kinds[kind].is_death or kind == "off" else {"rush"} if kind == "rush" else set()
        if self._busy_until.get((group, target), 0.0) > at or any(self._rests_until.get(r, 0.0) > at for r in rests):
            return
        rest_s = RUSH_REST_S if kind in ("rush", "off") else REST_S
        self._rests_until |= dict.fromkeys(rests, at + lasts + rest_s)
        self._busy_until[group, target] = at + lasts + 0.5
        yield Operation(round(at, 2), kind, target, lasts)

    def _target(self, group: Group, at: float, is_death: bool) -> str:
        if group == "client":
            return str(self.rng.randrange(self._clients))
        if group in ("fabric", "disk"):
            return group
        if group == "machine":
            return self.rng.choice(self._machines)
        if not is_death:
            return self.rng.choice(self._targets)
        ends = {
            name: max(self._rests_until.get(name, 0.0), self._busy_until.get((group, name), 0.0))
            for name in self._targets
        }
        return self.rng.choice([name for name in self._targets if ends[name] <= at] or self._targets)


def _length(kind: str, rng: random.Random) -> float:
    match kind:
        case "kill" | "term" | "hop" | "drop" | "rush":
            return 0.0
        case "twice":
            return rng.uniform(0.2, 2.0)
        case "return":
            return rng.uniform(0.01, 0.3)
        case "leave":
            return rng.uniform(0.1, 4.0)
        case "away":
            return rng.uniform(10.0, 25.0)
        case "full" | "unread" | "bad" | "clock":
            return rng.uniform(2.0, 8.0)
        case "off":
            return rng.uniform(0.5, 12.0)
        case "island" | "apart":
            return rng.choice((rng.uniform(0.1, 2.5), rng.uniform(2.0, 4.5), rng.uniform(4.0, 12.0)))
        case _:
            # Shorter and longer than a lease (2.5 s), and now and then longer than most timeouts.
            return rng.choice(
                (rng.uniform(0.05, 0.6), rng.uniform(0.5, 2.5), rng.uniform(2.0, 4.5), rng.uniform(4.0, 8.0))
            )

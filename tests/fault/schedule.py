"""A seed → what is done to the fabric, and when. Pure: the same seed and the same nodes give the same list.

Faults overlap: a node may be cut off while another is killed. They differ in the time that it takes to notice them,
which is what the fabric's repairs turn on: kill -9 closes every socket at once, a stopped process keeps them open and
silent, a cut link breaks, a stalled one is silent in one direction or both, a delayed one is only late.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NODES = ("router-1", "router-2", "logic-1", "logic-2", "job-1", "job-2", "comet-1", "comet-2", "comet-3")

# How often each is drawn.
ON_NODES = {"kill": 6, "twice": 2, "term": 1, "stop": 5}
ON_LINKS = {"cut": 4, "stall": 3, "stall-in": 1, "stall-out": 1, "delay": 3}
ON_CLIENTS = {"hop": 4, "drop": 3, "leave": 2, "freeze": 2}

# A node that died eight times without having been up for 10 s is given up by its supervisor: no fault, but its rule.
REST_S = 14.0


@dataclass(frozen=True)
class Operation:
    """One thing that is done.

    Attributes:
        at_s: seconds after the start.
        kind: on a node's process: kill (-9), twice (killed again while it comes back), term, stop (SIGSTOP, then
            SIGCONT). On the links that lead to a node: cut, stall (nothing is read), stall-in and stall-out (in one
            direction), delay. On a client: hop (says nothing and connects elsewhere), drop (its connection is reset),
            leave (a room, for a while), freeze (it stops reading).
        target: the node, or the client's number.
        lasts_s: until it is undone; for twice, until the second kill.
    """

    at_s: float
    kind: str
    target: str
    lasts_s: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.2f} s" if self.lasts_s else ""
        return f"{self.at_s:7.2f} s  {self.kind} {self.target}{lasts}"


def schedule(
    seed: int, seconds: float, clients: int, nodes: Sequence[str] = NODES, without: Iterable[str] = ()
) -> list[Operation]:
    """Everything that is done in a run, in its order.

    Args:
        clients: how many there are, numbered from 0.
        nodes: those that exist.
        without: kinds of nodes (`router`) and of operations (`freeze`) that are spared.
    """
    rng = random.Random(f"zim chaos {seed}")
    spared = set(without)
    targets = [name for name in nodes if name.partition("-")[0] not in spared]
    weights = {
        kind: weight
        for kinds in ((ON_NODES, ON_LINKS) if targets else ()) + ((ON_CLIENTS,) if clients else ())
        for kind, weight in kinds.items()
        if kind not in spared
    }
    made: list[Operation] = []
    if not weights:
        return made
    rests_until: dict[str, float] = {}
    busy_until: dict[tuple[str, str], float] = {}  # what is done already is not done again until it is undone
    at = rng.uniform(0.5, 1.5)
    while at < seconds:
        (kind,) = rng.choices(list(weights), list(weights.values()))
        target = str(rng.randrange(clients)) if kind in ON_CLIENTS else rng.choice(targets)
        lasts = round(_length(kind, rng), 2)
        group = "process" if kind in ON_NODES else "link" if kind in ON_LINKS else "client"
        is_free = busy_until.get((group, target), 0.0) <= at
        if group == "process" and kind != "stop":
            is_free = is_free and rests_until.get(target, 0.0) <= at
            if is_free:
                rests_until[target] = at + lasts + REST_S
        if is_free:
            busy_until[group, target] = at + lasts + 0.5
            made.append(Operation(round(at, 2), kind, target, lasts))
        at += rng.choice((rng.uniform(0.02, 0.2), rng.uniform(0.3, 1.2), rng.uniform(0.8, 2.5)))
    return made


def _length(kind: str, rng: random.Random) -> float:
    if kind in ("kill", "term", "hop", "drop"):
        return 0.0
    if kind == "twice":
        return rng.uniform(0.2, 2.0)
    if kind == "leave":
        return rng.uniform(0.1, 4.0)
    # Shorter and longer than a lease (2.5 s), and now and then longer than most timeouts.
    return rng.choice((rng.uniform(0.05, 0.6), rng.uniform(0.5, 2.5), rng.uniform(2.0, 4.5), rng.uniform(4.0, 8.0)))

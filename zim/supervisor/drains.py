"""What is to be said before a node is drained, and where a comet's clients go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zim.supervisor.standing import Standing
from zim.topology.nodes import Comet, Job, Logic, Router, Topology

MOST_PER_S = 1_000_000  # clients that a comet sends away

_LAST = {
    Comet: "its clients are cut off, for there is no other comet",
    Logic: "nobody can push or log in, for there is no other logic",
    Job: "pushes are late, for there is no other job, and comets fetch them",
    Router: "nobody can push or log in, for there is no other router",
}


def objections(topology: Topology, standings: Mapping[str, Standing], name: str) -> list[str]:
    """Why one would not want a node to be away, each in words; an operator may want it all the same.

    Args:
        standings: of the nodes that run here. Those of other machines are taken for running.
    """
    node = topology.node(name)
    if isinstance(node, Router) and topology.log is None:
        return [f"{name} has the log of its streams, and nobody can take it over: they pause until it is back"]
    alike = [one.name for one in topology.nodes if type(one) is type(node) and one.name != name]
    if not any(other not in standings or standings[other].state == "ready" for other in alike):
        return [f"without {name} " + _LAST[type(node)]]
    return []


def shares(clients: int, loads: Mapping[str, int]) -> dict[str, float]:
    """How many of a comet's clients go to which other one, so that all have about the same afterwards.

    Args:
        clients: that go.
        loads: of those that they may go to: how many each has.

    Returns:
        By name, those that get some. With nobody to go, all alike.
    """
    if clients <= 0 or not loads:
        return dict.fromkeys(loads, 1.0)
    level = _level(clients, sorted(loads.values()))
    return {name: level - load for name, load in loads.items() if load < level}


def _level(clients: int, loads: list[int]) -> float:
    """How many each has in the end, of those that get some: as water that is poured."""
    poured = float(clients)
    for n, load in enumerate(loads, 1):
        above = loads[n] if n < len(loads) else float("inf")
        level = load + poured / n
        if level <= above:
            return level
        poured -= n * (above - load)
    raise AssertionError(loads)


def missed(one: Standing, seen: Iterable[Standing]) -> list[str]:
    """What a node waits for, beside nodes that are away because they were drained."""
    away = [other.name for other in seen if other.state == "drained"]
    return [line for line in one.missing if not any(name in line.replace(":", " ").split() for name in away)]


def comet_loads(standings: Iterable[Standing], leaving: str) -> dict[str, int]:
    """Where the clients of a comet may go: comets that are ready here, and how many connections each has."""
    found = [one for one in standings if one.kind == "comet" and one.state == "ready" and one.name != leaving]
    return {one.name: int(one.number("connections")) for one in found}

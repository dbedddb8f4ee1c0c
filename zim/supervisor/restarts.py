"""What the supervisor decides: when a node is started again, when it is given up, who is missing, who stops first.

A node that has been ready once is never given up: its topology is right, and what ails it may pass.

Pure: no process, no clock. `zim.supervisor` acts on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zim.topology.nodes import Comet, Node

BACK_OFF_S = 0.1  # before the first restart, then doubling
MAX_BACK_OFF_S = 30.0
STEADY_S = 10.0  # ready for that long: its earlier deaths are forgotten
MAX_DEATHS = 8  # of a node that has never been ready
NOT_CURED_BY_RESTART = 2  # the exit code of a node whose port is in use, whose lock is held, …
PASSES_BY_ITSELF = 3  # that of a node which waits for room on its disk

# Entrances first, then what they feed, so that nothing is accepted that could not be handed on.
STOP_ORDER = ("logic", "router", "job", "comet")

# Beside its clients a node holds log files, ZeroMQ's sockets and the interpreter's own.
FILES_BESIDE_CONNECTIONS = 200


@dataclass
class Restarts:
    """The deaths of one node. Times are seconds on any monotonic clock."""

    deaths: int = 0
    ready_since: float | None = None
    was_ready: bool = False

    def ready(self, now: float) -> None:
        """It said that it is ready."""
        self.ready_since, self.was_ready = now, True

    def died(self, exit_code: int, now: float) -> float | None:
        """It died unasked. Gives the seconds to wait before it is started again; None gives it up."""
        if self.ready_since is not None and now - self.ready_since >= STEADY_S:
            self.deaths = 0
        self.ready_since = None
        self.deaths += 1
        may_pass = self.was_ready or exit_code == PASSES_BY_ITSELF
        if not may_pass and (exit_code == NOT_CURED_BY_RESTART or self.deaths >= MAX_DEATHS):
            return None
        return float(min(MAX_BACK_OFF_S, BACK_OFF_S * 2 ** min(self.deaths - 1, 20)))


@dataclass
class Readiness:
    """Which nodes of the fabric are there.

    Attributes:
        names: of all nodes that this supervisor starts.
        added: those that came while it ran: the fabric does without them.
        was_complete: once all were ready at the same time.
        given_up: who will not be started again. It has never been ready, so the fabric never was complete.
        down: who has died and is not ready again.
        drained: who has ended as it was asked to, and is not missed.
    """

    names: list[str]
    added: set[str] = field(default_factory=set)
    was_complete: bool = False
    given_up: list[str] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    drained: set[str] = field(default_factory=set)
    _ready: set[str] = field(default_factory=set)

    def add(self, name: str) -> None:
        """There is one more."""
        self.names.append(name)
        self.added.add(name)

    def ready(self, name: str) -> bool:
        """A node is ready. True once: when this makes the fabric complete for the first time."""
        self._ready.add(name)
        self.down.discard(name)
        self.drained.discard(name)
        if self.was_complete or set(self.missing) - self.added:
            return False
        self.was_complete = True
        return True

    def lost(self, name: str) -> None:
        """A node has died."""
        self._ready.discard(name)
        self.drained.discard(name)
        self.down.add(name)

    def left(self, name: str) -> None:
        """A node has been drained."""
        self._ready.discard(name)
        self.down.discard(name)
        self.drained.add(name)

    def gave_up(self, name: str) -> None:
        """A node will not be started again by itself."""
        self.lost(name)
        if name not in self.added:
            self.given_up.append(name)

    @property
    def missing(self) -> list[str]:
        """Who is not ready."""
        return [name for name in self.names if name not in self._ready and name not in self.drained]


def stop_order(nodes: Iterable[Node]) -> list[list[Node]]:
    """The nodes in groups; each group has stopped before the next is asked to."""
    every = list(nodes)
    return [[node for node in every if node.kind == kind] for kind in STOP_ORDER]


def without_head(line: str, name: str) -> str:
    """What a node's last line says, without time, name and level: these are known."""
    node = re.escape(name)
    return re.sub(rf"^(\S+ \S+ {node} [A-Z]+|{node}:) ", "", line.strip())


def parse_ready(line: str, name: str) -> dict[str, list[str]] | None:
    """What listens where, from the ready line `ready comet-1 {"tcp": ["127.0.0.1:8080"]}`; None for any other line."""
    head = f"ready {name} "
    if not line.startswith(head):
        return None
    try:
        listening = json.loads(line[len(head) :])
    except (ValueError, RecursionError):
        return None
    if not isinstance(listening, dict) or not all(isinstance(where, list) for where in listening.values()):
        return None
    return {str(what): [str(one) for one in where] for what, where in listening.items()}


def parse_said(line: str, name: str, word: str) -> dict[str, Any] | None:
    """What a node has said, by the word for it: of its reload, `{"digest": "…"}` or `{"problems": ["…"]}`; None for any
    other line."""
    head = f"{word} {name} "
    if not line.startswith(head):
        return None
    try:
        said = json.loads(line[len(head) :])
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def open_files_needed(nodes: Iterable[Node]) -> tuple[int, str]:
    """How many open files the hungriest comet may need, and its name; (0, "") without a comet."""
    needs = [(n.max_connections + FILES_BESIDE_CONNECTIONS, n.name) for n in nodes if isinstance(n, Comet)]
    return max(needs, key=lambda need: need[0], default=(0, ""))


def open_file_limits(hard: int, needed: int, endless: int) -> list[tuple[int, int]]:
    """Limits (soft, hard) to try, best first. Only root may raise the hard one; macOS refuses an endless soft one."""
    if hard == endless:
        wishes = sorted({needed, 1 << 20, 1 << 18, 1 << 16, 10_240}, reverse=True)
        return [(soft, hard) for soft in wishes]
    return [(needed, needed), (hard, hard)] if needed > hard else [(hard, hard)]

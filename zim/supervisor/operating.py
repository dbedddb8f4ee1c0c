"""What an operator asks of a fabric that runs: `zim drain`, `zim start`, `zim status`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from zim.supervisor.running import Supervisor
from zim.topology import Topology

DRAIN_S = 120.0  # for a node to end by itself
READY_S = 60.0  # for one to be ready again
TAKES_OVER = {
    "comet": "its clients have nowhere to go",
    "logic": "nobody answers the HTTP API",
    "job": "comets fetch every message themselves",
}


class Operator:
    """Takes such orders for the nodes of one supervisor."""

    def __init__(self, supervisor: Supervisor, topology: Topology) -> None:
        self._supervisor, self._topology = supervisor, topology

    def on_drain(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """`{"node": name, "yes": bool}`: it finishes what it has, ends, and is not started again. Switches.

        Returns:
            problems: why not, in words; or took_s and exit_code.
        """
        name, began = asked.get("node"), time.monotonic()
        if problem := self._problem(name):
            return {"problems": [problem]}
        assert isinstance(name, str)
        if (warning := self._warning(name)) and not asked.get("yes"):
            return {"problems": [warning], "is_warning": True}
        if name in self._supervisor.drained():
            return {"problems": [f"{name} is drained already"]}
        exit_code = self._supervisor.drain(name, DRAIN_S)
        if exit_code is None:
            return {"problems": [f"{name} has not ended within {DRAIN_S:g} s; it goes on draining"]}
        return {"took_s": round(time.monotonic() - began, 1), "exit_code": exit_code}

    def on_start(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """`{"node": name}`: a node that was drained is started. Switches: until it is ready.

        Returns:
            problems: why not, in words; or took_s.
        """
        name, began = asked.get("node"), time.monotonic()
        if problem := self._problem(name):
            return {"problems": [problem]}
        assert isinstance(name, str)
        if name not in self._supervisor.drained():
            return {"problems": [f"{name} is not drained"]}
        if not self._supervisor.start_again(name, READY_S):
            return {"problems": [f"{name} is not ready within {READY_S:g} s; its log says why"]}
        return {"took_s": round(time.monotonic() - began, 1)}

    def on_status(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Nothing is asked.

        Returns:
            nodes: of each its name, state (`ready`, `starting`, `draining`, `drained`), pid, since_s and deaths.
        """
        return {"fabric": self._topology.name, "nodes": self._supervisor.status()}

    def _problem(self, name: object) -> str:
        names = [node.name for node in self._supervisor.nodes]
        if name in names:
            return ""
        elsewhere = name in [node.name for node in self._topology.nodes]
        where = "runs on another machine; ask there" if elsewhere else f"is no node; there are {', '.join(names)}"
        return f"{name} {where}"

    def _warning(self, name: str) -> str:
        """What an operator may not expect."""
        kind = self._topology.node(name).kind
        others = [node.name for node in self._topology.nodes if node.kind == kind and node.name != name]
        left = [other for other in others if other not in self._supervisor.drained()]
        if kind == "router" and self._topology.log is None:
            return f"{name} has its log for itself, and nobody to hand over to: its streams pause until it is back"
        if kind == "router" and not left:
            return f"no other router is there to take the shards of {name}: all streams pause until it is back"
        return "" if left else f"{name} is the only {kind} that is left: {TAKES_OVER[kind]}"

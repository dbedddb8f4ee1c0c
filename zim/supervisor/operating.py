"""What operators want of a fabric that runs: `zim status`, `zim drain`, `zim start`, `zim restart`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore

from zim import __version__
from zim.supervisor.control import Order
from zim.supervisor.drains import MOST_PER_S, comet_loads, missed, objections, shares
from zim.supervisor.rolling import DrainNode, Rolling, Say, StartNode
from zim.supervisor.running import Supervisor
from zim.supervisor.standing import Standing
from zim.topology import Topology

log = logging.getLogger(__name__)
audit = logging.getLogger("zim.audit")

ANSWER_S = 1.0  # for nodes to say how they are
STEP_S = 0.25  # between two looks at the fabric, during a restart

Asked = Mapping[str, Any]
Said = dict[str, Any]


class Operator:
    """See the module. Its orders may switch.

    Attributes:
        topology: in force.
    """

    def __init__(self, topology: Topology, supervisor: Supervisor, host: str | None) -> None:
        """
        Args:
            host: that of `zim up --host`.
        """
        self.topology, self._supervisor, self._host = topology, supervisor, host
        self._one_at_a_time = BoundedSemaphore()
        self._rolling: Rolling | None = None
        self._lines: list[str] = []

    @property
    def orders(self) -> dict[str, Order]:
        """By the word for each."""
        return {
            "status": self._status,
            "drain": self._drain,
            "start": self._start,
            "restart": self._restart,
            "progress": self._progress,
            "halt": self._halt,
        }

    def _look(self) -> dict[str, Standing]:
        with self._one_at_a_time:
            return self._supervisor.ask_all(ANSWER_S)

    def _named(self, asked: Asked) -> str | Said:
        """The node that is meant, or what is wrong with it."""
        name, here = asked.get("node"), self._supervisor.standings()
        if isinstance(name, str) and name in here:
            return name
        there = {node.name: node.host for node in self.topology.nodes}
        if isinstance(name, str) and there.get(name):
            return {"problems": [f"{name} runs on host {there[name]}, ask zim up there"]}
        return {"problems": [f"no node {name} runs here; there are {', '.join(here)}"]}

    # -- one node

    def _status(self, asked: Asked) -> Said:
        found = self._look()
        nodes = [_told(one, missed(one, found.values()), time.time()) for one in found.values()]
        rolling = self._rolling
        restart = None
        if rolling is not None:
            restart = {"node": rolling.name, "done": rolling.done, "left": rolling.left, "is_over": rolling.is_over}
        about: Said = {"fabric": self.topology.name, "topology": str(self.topology.path), "host": self._host}
        about |= {"version": __version__, "pid": os.getpid()}
        return {**about, "nodes": nodes, "shards": _shards(found), "restart": restart}

    def _drain(self, asked: Asked) -> Said:
        """`{"do": "drain", "node": "comet-1", "per_s": 200, "is_agreed": false}`."""
        name = self._named(asked)
        if not isinstance(name, str):
            return name
        per_s = asked.get("per_s")
        if per_s is not None and not (type(per_s) is int and 0 < per_s <= MOST_PER_S):
            return {"problems": [f"per_s is {per_s!r}; right is a whole number, at most {MOST_PER_S:,}"]}
        if (said := self._busy()) is not None:
            return said
        found = self._look()
        if found[name].state == "drained":
            return {"problems": [f"{name} is {found[name].state}"]}
        if not asked.get("is_agreed") and (why := objections(self.topology, found, name)):
            return {"objections": why}
        how: dict[str, Any] = {}
        if found[name].kind == "comet" and (loads := comet_loads(found.values(), name)) and self._are_all_here():
            how["shares"] = shares(int(found[name].number("connections")), loads)
        if per_s is not None:
            how["per_s"] = per_s
        audit.warning("drain", extra={"node": name})
        self._supervisor.drain(name, how)
        return {"node": name, "connections": int(found[name].number("connections"))}

    def _start(self, asked: Asked) -> Said:
        """`{"do": "start", "node": "comet-1"}`."""
        name = self._named(asked)
        if not isinstance(name, str):
            return name
        state = self._supervisor.standings()[name].state
        if state not in ("draining", "drained", "given up"):
            return {"problems": [f"{name} is {state}: it was not drained"]}
        audit.warning("start", extra={"node": name})
        self._supervisor.start(name)
        return {"node": name, "was": state}

    def _are_all_here(self) -> bool:
        """No comet runs on another machine, of which nobody here knows how many clients it has."""
        return all(comet.name in self._supervisor.standings() for comet in self.topology.comets)

    # -- many

    def _busy(self) -> Said | None:
        if self._rolling is None or self._rolling.is_over:
            return None
        return {"problems": ["a restart is under way; `zim restart --stop` ends it after the node that is away now"]}

    def _restart(self, asked: Asked) -> Said:
        """`{"do": "restart", "nodes": ["comet-1"], "is_agreed": false}`; without nodes it is all of them."""
        if (said := self._busy()) is not None:
            return said
        wanted = asked.get("nodes", [])
        if not isinstance(wanted, list):
            return {"problems": [f"nodes is {wanted!r}; right is a list of names"]}
        for name in wanted:
            if not isinstance(named := self._named({"node": name}), str):
                return named
        found = self._look()
        names = [name for name in found if name in wanted or not wanted]
        names = [name for name in names if found[name].state != "drained"]
        if not names:
            return {"problems": ["all of them are drained: zim start brings one back"]}
        if late := [one.name for one in found.values() if one.state not in ("ready", "drained")]:
            states = ", ".join(f"{name} is {found[name].state}" for name in late)
            return {"problems": [f"not everybody is there: {states}"]}
        why = {name: found_ for name in names if (found_ := objections(self.topology, found, name))}
        if why and not asked.get("is_agreed"):
            return {"objections": [one for several in why.values() for one in several]}
        self._lines = []
        pausing = [name for name in why if found[name].kind != "comet"]
        self._rolling = Rolling([(name, found[name].kind) for name in names], pausing, time.monotonic())
        audit.warning("restart", extra={"nodes": ",".join(names)})
        self._supervisor.spawn(self._roll, self._rolling)
        return {"nodes": names}

    def _roll(self, rolling: Rolling) -> None:
        while not rolling.is_over:
            for action in rolling.step(self._look(), time.monotonic()):
                match action:
                    case DrainNode(name=name, shares=where):
                        self._supervisor.drain(name, {"shares": dict(where)} if where else {})
                    case StartNode(name=name):
                        self._supervisor.start(name)
                    case Say(text=text):
                        log.info("restart: %s", text)
                        self._lines.append(text)
            gevent.sleep(STEP_S)

    def _progress(self, asked: Asked) -> Said:
        """`{"do": "progress", "since": 3}`: lines from that one on."""
        rolling, since = self._rolling, asked.get("since", 0)
        if rolling is None:
            return {"problems": ["no restart is under way"]}
        lines = self._lines[since:] if isinstance(since, int) else self._lines
        said: Said = {"lines": lines, "is_over": rolling.is_over, "why": rolling.why, "node": rolling.name}
        if rolling.name:
            one = self._supervisor.standings()[rolling.name]
            said |= {"state": one.state, "connections": int(one.number("connections"))}
        return said | {"done": rolling.done, "left": rolling.left}

    def _halt(self, asked: Asked) -> Said:
        """No other node is restarted."""
        if self._busy() is None or self._rolling is None:
            return {"problems": ["no restart is under way"]}
        self._rolling.stop()
        return {"node": self._rolling.name}


def _told(one: Standing, missing: list[str], now: float) -> Said:
    """A node, as `zim status --json` shows it."""
    known = ("version", "lag_ms", "backlog_bytes", "connections", "pushes", "failed")
    found: Said = {"node": one.name, "kind": one.kind, "state": one.state, "why": one.why}
    found |= {"since": round(one.since, 3), "for_s": round(max(0.0, now - one.since), 1)}
    found |= {"restarts": one.restarts, "pid": one.pid if one.runs or one.state == "starting" else 0}
    answers = one.runs and not one.is_asked
    found |= {"missing": missing if one.runs else [], "answers": answers}
    return found | {key: one.told[key] for key in known if answers and key in one.told}


def _shards(found: Mapping[str, Standing]) -> list[Said]:
    """Every shard that a router here owns: `{"shard", "owner", "term", "to"}`; to: who is given it now, or ""."""
    held = [(one.name, row) for one in found.values() if one.runs for row in one.told.get("shards", [])]
    rows = [{"shard": shard, "owner": owner, "term": term, "to": to} for owner, (shard, term, to) in held]
    return sorted(rows, key=lambda row: str(row["shard"]))

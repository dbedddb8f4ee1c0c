"""Starts the processes of a topology, restarts those that die, stops all in the order of the data.

What it decides is in `zim.supervisor.restarts`; here it acts: one greenlet for each node keeps it alive and tells what
became of it; the one that `run()` is called in waits for a reason to stop. No node outlives the supervisor: each
inherits the reading end of a pipe, the *lifeline*, whose only writing end is here, and ends when it reads the end of
file. That holds for `kill -9` too, and on macOS.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import gevent
from gevent import Greenlet
from gevent.event import AsyncResult, Event

from zim.supervisor.keeping import Command, Keeper, RunningNode
from zim.supervisor.restarts import Readiness, stop_order
from zim.supervisor.standing import Standing
from zim.topology import Node, Topology

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0  # for all nodes of one kind, before they are killed
QUICK_STOP_S = 1.0  # after which it says whom it waits for
READY_TIMEOUT_S = 30.0  # before it says who is missing


def node_command(topology: Topology, *options: str) -> Command:
    """The command line of each node of a topology, as a function of the node and its lifeline."""

    def command(node: Node, lifeline: int) -> list[str]:
        where = ["--topology", str(topology.path), "--in-force", "--lifeline", str(lifeline)]
        return [sys.executable, "-m", "zim", "node", node.name, *where, *options]

    return command


class Supervisor:
    """Runs the nodes of a topology. Made once, run once.

    Args:
        nodes: those to run.
        command: gives the command line for a node and its lifeline's file descriptor.
        on_complete: called once, when all nodes are ready for the first time.
        pass_on: takes the lines that nodes write. Must not block.

    Attributes:
        deaths: how often each node has ended unasked.
        on_hangup: what SIGHUP does, unless a terminal was closed.
        on_stop: is called when the nodes are about to be stopped.
        in_force: the topology as nodes are told of it when they start; see `zim.topology.pack`.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        command: Command,
        on_complete: Callable[[list[RunningNode]], None],
        pass_on: Callable[[bytes], None],
    ) -> None:
        self.nodes = list(nodes)
        self.command, self.pass_on = command, pass_on
        # Neither end is inheritable (PEP 446); Popen passes the reading one on, so that the writing one stays alone.
        self.lifeline, self._lifeline_end = os.pipe()
        self._on_complete = on_complete
        self._keepers = {node.name: Keeper(node, self) for node in self.nodes}
        self._greenlets: dict[str, Greenlet[..., Any]] = {}
        self._readiness = Readiness(list(self._keepers))
        self._running: dict[str, RunningNode] = {}
        self.deaths = dict.fromkeys(self._keepers, 0)
        self.in_force = b""
        self._has_terminal = os.isatty(0)
        self.on_hangup: Callable[[], None] = lambda: None
        self.on_stop: Callable[[], None] = lambda: None
        self._asked = 0
        self._statuses: dict[str, Event] = {}  # set by nodes that answer the last question
        self._reloads: dict[str, AsyncResult[Mapping[str, Any]]] = {}  # what nodes that were told say of it
        self._wanted = ""  # the digest of the topology that they are to have
        self._must_reload: set[str] = set()  # those that start: they are told once they are ready
        self._added: set[str] = set()  # those that came while it ran, and have never been ready
        self._over = Event()
        self._reason = ""  # to stop, unless that is nodes that were given up
        self._is_stopping = False
        self._is_killed = False
        self._has_failed = False

    def run(self) -> int:
        """Runs until it is told to stop by SIGINT or SIGTERM, its terminal is closed, or nothing is left to run.

        Returns:
            0 when told to stop; 1 when a node was given up, or was down in the end; 130 when a second Ctrl-C killed the
            nodes.

        Switches: all the time.
        """
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored under nohup
            numbers.append(signal.SIGHUP)
        signals = [gevent.signal_handler(number, self._on_signal, number) for number in numbers]
        try:
            self._greenlets = {name: self.spawn(keeper.run) for name, keeper in self._keepers.items()}
            self._wait()
            self.on_stop()
            self._stop()
            log.info("stopped")
        finally:
            for keeper in self._keepers.values():
                keeper.kill()
            for handler in signals:
                handler.cancel()
            os.close(self._lifeline_end)
            os.close(self.lifeline)
        if self._readiness.down or self._has_failed:
            return 1
        return 130 if self._is_killed else 0

    # ------------------------------------------------------------ from the keepers

    def on_ready(self, one: RunningNode) -> None:
        """A node is ready."""
        name, readiness = one.node.name, self._readiness
        self._running[name] = one
        if name in self._must_reload:  # it may have read its file before
            self._must_reload.discard(name)
            self._keepers[name].reload()
        if self._over.is_set():
            return
        if name in self._added:
            self._added.discard(name)
            self.on_reloaded(name, {"digest": self._wanted})
            log.info("node ready", extra={"node": name, "pid": one.pid, "listens": one.listening})
        elif readiness.was_complete:
            log.info("node ready again", extra={"node": name, "pid": one.pid})
        if readiness.ready(name):
            self._on_complete([self._running[name] for name in readiness.names if name in self._running])

    def on_lost(self, name: str, why: str, *, for_good: bool = False) -> None:
        """A node has ended; for good if it was given up. why: how, and its last words, for people."""
        if self._over.is_set():
            return
        problem = f"is not ready, {why}" if name in self._added else "has died, and starts with it"
        self.on_reloaded(name, {"problems": [problem]})
        self.deaths[name] += not for_good
        self._readiness.gave_up(name) if for_good else self._readiness.lost(name)
        if self._readiness.given_up:
            self._over.set()

    def on_drained(self, name: str) -> None:
        """A node has ended, for it was drained; or is not started, for it is drained."""
        if not self._over.is_set():
            self.on_reloaded(name, {"problems": ["is drained, and starts with it"]})
            self._readiness.left(name)

    def on_status(self, name: str, said: Mapping[str, Any]) -> None:
        """A node tells how it is."""
        if said.get("n") == self._asked and (event := self._statuses.get(name)) is not None:
            event.set()

    def on_reloaded(self, name: str, said: Mapping[str, Any]) -> None:
        """A node has read its topology anew; or it could not."""
        if (result := self._reloads.get(name)) is not None and said.get("digest", self._wanted) == self._wanted:
            result.set(said)  # else it answers an earlier one

    def add(self, nodes: Iterable[Node]) -> None:
        """Runs these, too. Does not switch."""
        for node in nodes:
            if self._over.is_set():
                return
            name = node.name
            keeper = self._keepers[name] = Keeper(node, self)
            self.nodes.append(node)
            self.deaths[name] = 0
            self._added.add(name)
            self._readiness.add(name)
            self._greenlets[name] = self.spawn(keeper.run)

    def reload(
        self, digest: str, timeout_s: float, added: Collection[str] = (), waiting: Collection[str] = ()
    ) -> dict[str, str]:
        """Tells all nodes to read their topology anew, and waits for them. One at a time. Switches.

        Args:
            digest: of the one that they are to have.
            added: those that start with it, and are waited for as well.
            waiting: what no node takes over.

        Returns:
            The nodes that have not, and why.
        """
        self._wanted = digest
        missing = set(self._readiness.missing).difference(added)
        late = dict.fromkeys(missing, "is not ready, and takes it over when it is")
        # A drained one may be starting, with what was in force before.
        away = self._must_reload = missing | self._readiness.drained
        self._reloads = {name: AsyncResult() for name in self._keepers if name not in away}
        for name in self._reloads.keys() - set(added):
            self._keepers[name].reload()
        gevent.wait(list(self._reloads.values()), timeout=timeout_s)
        for name, result in self._reloads.items():
            said = result.value or {"problems": [f"has not answered within {timeout_s:g} s"]}
            if problems := said.get("problems"):
                late[name] = "; ".join(map(str, problems))
            elif more := sorted(set(map(str, said.get("waiting", ()))).difference(waiting)):
                late[name] = f"has to be restarted for {', '.join(more)}"
        self._reloads = {}
        return late

    # ------------------------------------------------------------ from operators

    def drain(self, name: str, asked: Mapping[str, Any]) -> None:
        """A node is to hand on what it has, to end, and to stay away. Does not switch. asked: how."""
        self._keepers[name].drain(asked)
        if self._greenlets[name].ready():  # it was given up
            self._readiness.left(name)

    def start(self, name: str) -> None:
        """A node that was drained, or is being, or was given up, is to come back. Does not switch."""
        self._keepers[name].start()
        if self._greenlets[name].ready():
            self._greenlets[name] = self.spawn(self._keepers[name].run)

    def standings(self) -> dict[str, Standing]:
        """How all nodes are, as far as is known. They go on changing."""
        return {name: keeper.standing for name, keeper in self._keepers.items()}

    def ask_all(self, timeout_s: float) -> dict[str, Standing]:
        """Asks all nodes how they are. Switches: until all have answered, or the time is over."""
        self._asked += 1
        self._statuses = {name: Event() for name in self._keepers}
        asked = [self._statuses[name] for name, keeper in self._keepers.items() if keeper.ask_status(self._asked)]
        gevent.wait(asked, timeout=timeout_s)
        return self.standings()

    # ------------------------------------------------------------ for metrics

    def is_ready(self) -> dict[str, float]:
        """1 for each node that is ready, else 0."""
        missing = {*self._readiness.missing, *self._readiness.drained}
        return {name: float(name not in missing) for name in self._keepers}

    def missing(self) -> list[str]:
        """The nodes that are not ready, in words."""
        return [f"{name} is not ready" for name in self._readiness.missing]

    def spawn(self, run: Callable[..., object], *args: object) -> Greenlet[..., Any]:
        """Starts a greenlet whose failure ends the supervisor, as nothing else would notice it."""
        greenlet = gevent.spawn(run, *args)
        greenlet.link_exception(self._on_failure)
        return greenlet

    def _wait(self) -> None:
        """Until there is a reason to stop."""
        readiness = self._readiness
        if not self._over.wait(READY_TIMEOUT_S) and not readiness.was_complete:
            log.warning("nodes not ready yet", extra={"missing": ",".join(readiness.missing)})
        self._over.wait()
        if self._reason:
            log.info("stopping", extra={"reason": self._reason})
        else:
            nodes = ",".join(readiness.given_up)
            log.error("no use going on without these nodes, stopping", extra={"nodes": nodes})

    def _end(self, reason: str) -> None:
        """There is a reason to stop."""
        if not self._over.is_set():
            self._reason = reason
            self._over.set()
            for name in list(self._reloads):
                self.on_reloaded(name, {"problems": ["is being stopped"]})

    def _stop(self) -> None:
        """Stops the nodes, kind after kind; kills those that take too long."""
        self._is_stopping = True
        for group in stop_order(self.nodes):
            keepers = [self._keepers[node.name] for node in group]
            greenlets = [self._greenlets[node.name] for node in group]
            for keeper in keepers:
                keeper.kill() if self._is_killed else keeper.stop()
            if len(gevent.joinall(greenlets, timeout=QUICK_STOP_S)) < len(greenlets):
                late = [keeper.node.name for keeper, one in zip(keepers, greenlets, strict=True) if not one.ready()]
                log.info("waiting for nodes to stop", extra={"nodes": ",".join(late)})
                gevent.joinall(greenlets, timeout=STOP_TIMEOUT_S - QUICK_STOP_S)
            for keeper, greenlet in zip(keepers, greenlets, strict=True):
                if not greenlet.dead:
                    log.warning("node killed, as it did not end in time", extra={"node": keeper.node.name})
                    keeper.kill()
            gevent.joinall(greenlets)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP and os.isatty(0) == self._has_terminal:  # else the terminal was closed
            self.on_hangup()
            return
        if self._is_stopping and number == signal.SIGINT:
            self._is_killed = True
            for keeper in self._keepers.values():
                keeper.kill()
            return
        self._is_stopping = True
        self._end(signal.Signals(number).name)

    def _on_failure(self, greenlet: Greenlet[..., Any]) -> None:
        log.error("supervisor failed", extra={"error": repr(greenlet.exception)})
        self._has_failed = True
        self._end("failure")

"""Starts the processes of a topology, restarts those that die, stops all in the order of the data.

What it decides is in `zim.supervisor.restarts`; here it acts: one greenlet for each node keeps it alive and tells what
became of it; the one that `run()` is called in waits for a reason to stop. No node outlives the supervisor: each
inherits the reading end of a pipe, the *lifeline*, whose only writing end is here, and ends when it reads the end of
file. That holds for `kill -9` too, and on macOS.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gevent
from gevent import Greenlet, subprocess
from gevent.event import AsyncResult, Event

from zim.supervisor.restarts import (
    PASSES_BY_ITSELF,
    Readiness,
    Restarts,
    parse_ready,
    parse_reloaded,
    stop_order,
)
from zim.topology import Node, Topology

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0  # for all nodes of one kind, before they are killed
QUICK_STOP_S = 1.0  # after which it says whom it waits for
READY_TIMEOUT_S = 30.0  # before it says who is missing
LAST_LINES = 20
MAX_LINE_BYTES = 65_536
DRAIN_TIMEOUT_S = 1.0  # a grandchild may hold a dead node's stderr open

Command = Callable[[Node, int], list[str]]


@dataclass(frozen=True)
class RunningNode:
    """A node that is ready.

    Attributes:
        listening: what listens where, as the node itself said.
    """

    node: Node
    pid: int
    listening: dict[str, list[str]]


def node_command(topology: Topology, *options: str) -> Command:
    """The command line of each node of a topology, as a function of the node and its lifeline."""

    def command(node: Node, lifeline: int) -> list[str]:
        where = ["--topology", str(topology.path), "--in-force", "--lifeline", str(lifeline)]
        return [sys.executable, "-m", "zim", "node", node.name, *where, *options]

    return command


class _Keeper:
    """Keeps one node running. Everything in it happens in its greenlet, but for `stop()` and `kill()`."""

    def __init__(self, node: Node, supervisor: Supervisor) -> None:
        self.node = node
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._supervisor = supervisor
        self._restarts = Restarts()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = Event()
        self._is_killed = False

    def run(self) -> None:
        """Starts it, and again when it dies, until it is stopped or given up."""
        name, supervisor = self.node.name, self._supervisor
        while not self._stopping.is_set():
            exit_code = self._run_once()
            supervisor.on_lost(name)
            if self._stopping.is_set():
                return
            delay = self._restarts.died(exit_code, time.monotonic())
            how = _how_it_ended(exit_code)
            if delay is None:
                extra = {"node": name, "ended": how, "deaths": self._restarts.deaths}
                log.error("node given up\n%s", _indent(self.last_lines), extra=extra)
                supervisor.on_lost(name, for_good=True)
                return
            if exit_code == PASSES_BY_ITSELF:
                why = self.last_lines[-1] if self.last_lines else how
                log.warning("node waits", extra={"node": name, "for": why, "restart_in_s": delay})
            else:
                log.warning("node died", extra={"node": name, "ended": how, "restart_in_s": delay})
            self._stopping.wait(delay)

    def stop(self) -> None:
        """Asks it to end, and does not start it again."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self._is_killed = True
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def reload(self) -> None:
        """Asks it to read its topology anew."""
        self._signal(signal.SIGHUP)

    def _signal(self, number: int) -> None:
        # Popen checks that it has not been waited for, so the pid cannot be another's.
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.send_signal(number)

    def _run_once(self) -> int:
        supervisor = self._supervisor
        self.last_lines.clear()
        try:
            process = subprocess.Popen(
                supervisor.command(self.node, supervisor.lifeline),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(supervisor.lifeline,),
                start_new_session=True,  # else Ctrl-C in a terminal reaches every node at the same time
            )
        except OSError as error:
            self._pass_on(f"{self.node.name} cannot be started: {error}".encode())
            return 1
        self._process = process
        if self._stopping.is_set():  # asked while Popen let others run, when there was nothing to signal yet
            self._signal(signal.SIGKILL if self._is_killed else signal.SIGTERM)
        supervisor.spawn(_hand, process, supervisor.in_force)
        readers = [supervisor.spawn(self._read_stdout, process), supervisor.spawn(self._forward, process.stderr)]
        exit_code: int = process.wait()
        gevent.joinall(readers, timeout=DRAIN_TIMEOUT_S)
        gevent.killall(readers)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        return exit_code

    def _read_stdout(self, process: subprocess.Popen[bytes]) -> None:
        for line in _lines(process.stdout):
            text, name = line.decode("utf-8", "replace").strip(), self.node.name
            if (listening := parse_ready(text, name)) is not None:
                self._restarts.ready(time.monotonic())
                self._supervisor.on_ready(RunningNode(self.node, process.pid, listening))
            elif (said := parse_reloaded(text, name)) is not None:
                self._supervisor.on_reloaded(name, said)
            else:
                self._pass_on(line)

    def _forward(self, stderr: Any) -> None:
        for line in _lines(stderr):
            self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        self.last_lines.append(line.decode("utf-8", "replace").rstrip("\n"))
        self._supervisor.pass_on(line if line.endswith(b"\n") else line + b"\n")


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
        self._keepers = {node.name: _Keeper(node, self) for node in self.nodes}
        self._greenlets: dict[str, Greenlet[..., Any]] = {}
        self._readiness = Readiness(list(self._keepers))
        self._running: dict[str, RunningNode] = {}
        self.deaths = dict.fromkeys(self._keepers, 0)
        self.in_force = b""
        self._has_terminal = os.isatty(0)
        self.on_hangup: Callable[[], None] = lambda: None
        self.on_stop: Callable[[], None] = lambda: None
        self._reloads: dict[str, AsyncResult[Mapping[str, Any]]] = {}  # what nodes that were told say of it
        self._wanted = ""  # the digest of the topology that they are to have
        self._must_reload: set[str] = set()  # those that start: they are told once they are ready
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
        if readiness.ready(name):
            self._on_complete([self._running[name] for name in readiness.names])
        elif readiness.was_complete:
            log.info("node ready again", extra={"node": name, "pid": one.pid})

    def on_lost(self, name: str, *, for_good: bool = False) -> None:
        """A node has ended; for good if it was given up."""
        if self._over.is_set():
            return
        self.on_reloaded(name, {"problems": ["has died, and starts with it"]})
        self.deaths[name] += not for_good
        self._readiness.gave_up(name) if for_good else self._readiness.lost(name)
        if self._readiness.given_up:
            self._over.set()

    def on_reloaded(self, name: str, said: Mapping[str, Any]) -> None:
        """A node has read its topology anew; or it could not."""
        if (result := self._reloads.get(name)) is not None and said.get("digest", self._wanted) == self._wanted:
            result.set(said)  # else it answers an earlier one

    def reload(self, digest: str, timeout_s: float) -> dict[str, str]:
        """Tells all nodes to read their topology anew. One at a time. Switches.

        Args:
            digest: of the one that they are to have.

        Returns:
            The nodes that have not, and why.
        """
        self._wanted = digest
        self._must_reload = set(self._readiness.missing)
        late = dict.fromkeys(self._must_reload, "is not ready, and takes it over when it is")
        self._reloads = {name: AsyncResult() for name in self._keepers if name not in self._must_reload}
        for name in self._reloads:
            self._keepers[name].reload()
        gevent.wait(list(self._reloads.values()), timeout=timeout_s)
        for name, result in self._reloads.items():
            said = result.value or {"problems": [f"has not answered within {timeout_s:g} s"]}
            if problems := said.get("problems"):
                late[name] = "; ".join(map(str, problems))
        self._reloads = {}
        return late

    def is_ready(self) -> dict[str, float]:
        """1 for each node that is ready, else 0."""
        missing = set(self._readiness.missing)
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


def _hand(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Writes to what has just started. Switches."""
    with contextlib.suppress(OSError):  # it has died
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.close()


def _lines(stream: Any) -> Iterable[bytes]:
    while line := stream.readline(MAX_LINE_BYTES):
        yield line


def _how_it_ended(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _indent(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines) or "    (it said nothing)"

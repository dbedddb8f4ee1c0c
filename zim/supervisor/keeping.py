"""Keeps one node running: starts its process, reads what it says, starts it again when it dies; or drains it, and waits
until it is wanted again."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import gevent
from gevent import Greenlet, subprocess
from gevent.event import Event
from gevent.queue import Queue

from zim.supervisor.restarts import PASSES_BY_ITSELF, Restarts, parse_ready, parse_said, without_head
from zim.supervisor.standing import Standing
from zim.topology import Node

log = logging.getLogger("zim.supervisor.running")

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


class Keepers(Protocol):
    """Who has keepers. Nothing switches.

    Attributes:
        command: gives the command line for a node and its lifeline's file descriptor; lifeline: that one.
        in_force: the topology as nodes are told of it when they start.
        pass_on: takes the lines that nodes write.
    """

    command: Command
    lifeline: int
    in_force: bytes
    pass_on: Callable[[bytes], None]

    def on_ready(self, one: RunningNode) -> None:
        """A node is ready."""

    def on_lost(self, name: str, why: str, *, for_good: bool = False) -> None:
        """A node has ended; for good if it was given up. why: how, and its last words, for people."""

    def on_drained(self, name: str) -> None:
        """A node has ended, for it was drained."""

    def on_reloaded(self, name: str, said: Mapping[str, Any]) -> None:
        """A node has read its topology anew; or it could not."""

    def on_status(self, name: str, said: Mapping[str, Any]) -> None:
        """A node tells how it is."""

    def spawn(self, run: Callable[..., object], *args: object) -> Greenlet[..., Any]:
        """Starts a greenlet whose failure ends the supervisor."""


class Keeper:
    """Keeps one node running. Everything in it happens in its greenlet, but for what is asked of it.

    Attributes:
        standing: how its node is.
    """

    def __init__(self, node: Node, supervisor: Keepers) -> None:
        self.node = node
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._supervisor = supervisor
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = Event()
        self._wanted = Event()  # unless it is drained
        self._wanted.set()
        self._is_killed = False
        self._orders: Queue[bytes] = Queue()
        self.standing = Standing(node.name, node.kind)

    def run(self) -> None:
        """Starts it, and again when it dies, until it is stopped or given up. Then it may be called once more."""
        name, supervisor = self.node.name, self._supervisor
        self._restarts = Restarts()
        while not self._stopping.is_set():
            if not self._wanted.is_set():
                self._rest()
                continue
            self.standing.move("starting", time.time())
            exit_code = self._run_once()
            if self.standing.state == "draining":
                self._on_left(exit_code)
                continue
            how = _how_it_ended(exit_code)
            last = without_head(self.last_lines[-1], name) if self.last_lines and exit_code > 0 else ""
            why = f"{how}: {last}" if last else how
            self.standing.move("down", time.time(), why)
            supervisor.on_lost(name, why)
            if self._stopping.is_set():
                return
            delay = self._restarts.died(exit_code, time.monotonic())
            if delay is None:
                extra = {"node": name, "ended": how, "deaths": self._restarts.deaths}
                self.standing.move("given up", time.time(), why)
                log.error("node given up\n%s", _indent(self.last_lines), extra=extra)
                supervisor.on_lost(name, why, for_good=True)
                return
            if exit_code == PASSES_BY_ITSELF:
                why = self.last_lines[-1] if self.last_lines else how
                log.warning("node waits", extra={"node": name, "for": why, "restart_in_s": delay})
            else:
                log.warning("node died", extra={"node": name, "ended": how, "restart_in_s": delay})
            self._stopping.wait(delay)

    def _on_left(self, exit_code: int) -> None:
        """It was drained, and has ended."""
        how = "" if exit_code == 0 else f"ended before it was done: {_how_it_ended(exit_code)}"
        self.standing.move("drained", time.time(), how)
        self.standing.drains += 1
        self._restarts = Restarts(was_ready=True)
        if how:
            log.warning("node drained, not to the end", extra={"node": self.node.name, "why": how})
        else:
            log.info("node drained", extra={"node": self.node.name})
        self._supervisor.on_drained(self.node.name)

    def _rest(self) -> None:
        """Nobody wants it. Switches: until somebody does, or all is stopped."""
        if self.standing.state != "drained":  # it was to be, while it started, and has died then
            self.standing.move("drained", time.time(), self.standing.why)
        self._supervisor.on_drained(self.node.name)
        self._wanted.wait()

    def drain(self, asked: Mapping[str, Any]) -> None:
        """Asks it to hand on what it has and to end, and does not start it again until `start`. Does not switch."""
        self._wanted.clear()
        standing, now = self.standing, time.time()
        if standing.runs:  # one that starts is told once it is ready
            self._orders.put(json.dumps({"do": "drain", **asked}).encode() + b"\n")
            if standing.state == "ready":
                standing.move("draining", now)
        elif standing.state in ("down", "given up"):
            standing.move("drained", now, f"was {standing.state}: {standing.why}")

    def start(self) -> None:
        """It is wanted again, at once or as soon as it has ended. Does not switch."""
        self._wanted.set()

    @property
    def is_wanted(self) -> bool:
        """It is to run, now or as soon as it has ended."""
        return self._wanted.is_set()

    def ask_status(self, number: int) -> bool:
        """Asks how it is; returns whether it will answer. Does not switch."""
        if not self.standing.runs or self.standing.is_asked:
            return False
        self.standing.is_asked = True
        self._orders.put(json.dumps({"do": "status", "n": number}).encode() + b"\n")
        return True

    def stop(self) -> None:
        """Asks it to end, and does not start it again."""
        self._stopping.set()
        self._wanted.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self._is_killed = True
        self._stopping.set()
        self._wanted.set()
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
        self.standing.began(process.pid)
        self._orders = Queue()
        data = supervisor.in_force
        writer = supervisor.spawn(_hand, process, len(data).to_bytes(8, "big") + data, self._orders)
        readers = [supervisor.spawn(self._read_stdout, process), supervisor.spawn(self._forward, process.stderr)]
        exit_code: int = process.wait()
        gevent.joinall(readers, timeout=DRAIN_TIMEOUT_S)
        gevent.killall([*readers, writer])
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        return exit_code

    def _read_stdout(self, process: subprocess.Popen[bytes]) -> None:
        for line in _lines(process.stdout):
            text, name = line.decode("utf-8", "replace").strip(), self.node.name
            if (listening := parse_ready(text, name)) is not None:
                self._restarts.ready(time.monotonic())
                if self.standing.state == "starting":
                    self.standing.move("ready", time.time())
                if not self.is_wanted:
                    self.drain({})  # as was asked while it started
                self._supervisor.on_ready(RunningNode(self.node, process.pid, listening))
            elif (said := parse_said(text, name, "reloaded")) is not None:
                self._supervisor.on_reloaded(name, said)
            elif (said := parse_said(text, name, "status")) is not None:
                self.standing.told, self.standing.is_asked = said, False
                self._supervisor.on_status(name, said)
            elif parse_said(text, name, "draining") is not None:
                self._on_draining()
            else:
                self._pass_on(line)

    def _on_draining(self) -> None:
        """It has begun. If we have not asked for it, somebody else has."""
        log.info("node is being drained", extra={"node": self.node.name})
        if self.standing.state != "draining":
            self.standing.move("draining", time.time())
            self._wanted.clear()

    def _forward(self, stderr: Any) -> None:
        for line in _lines(stderr):
            self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        self.last_lines.append(line.decode("utf-8", "replace").rstrip("\n"))
        self._supervisor.pass_on(line if line.endswith(b"\n") else line + b"\n")


def _hand(process: subprocess.Popen[bytes], data: bytes, orders: Queue[bytes]) -> None:
    """Writes to what has just started, and then what it is told. Switches."""
    with contextlib.suppress(OSError):  # it has died
        assert process.stdin is not None
        while True:
            process.stdin.write(data)
            process.stdin.flush()
            data = orders.get()


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

"""What each kind of the schedule does to a fabric and its clients, and how it is undone."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Sequence

import gevent
from gevent import socket

from tests.fault.clients import Clock, Person, Zim
from tests.fault.disk import Disk
from tests.fault.fabric import ChaosFabric
from tests.fault.history import History
from tests.fault.machine_faults import MachineFaults
from tests.fault.schedule import KINDS, Operation

BACK_S = 15.0  # for which a node's return is waited for, to kill it again
LOOK_S = 0.005


class Faults:
    """Does what the schedule says.

    Args:
        disk: under the fabric's data; None where there is none to play with.
        say: is told what cannot be done.
        machines: what can be done to whole machines; None where the nodes are all on one.
    """

    def __init__(
        self,
        fabric: ChaosFabric,
        disk: Disk | None,
        people: Sequence[Person],
        history: History,
        clock: Clock,
        say: Callable[[str], None],
        machines: MachineFaults | None = None,
    ) -> None:
        self._fabric, self._disk, self._people, self._machines = fabric, disk, people, machines
        self._history, self._clock, self._say = history, clock, say
        self._rng = random.Random(f"zim chaos faults {history.seed}")
        self._later: list[gevent.Greenlet[..., object]] = []
        self._under_way: list[gevent.Greenlet[..., object]] = []

    def do(self, operation: Operation) -> None:
        """Begins it, and undoes it later."""
        kind, target, lasts_s = operation.kind, operation.target, operation.lasts_s
        match KINDS[kind].group:
            case "client":
                self._to_client(kind, self._people[int(target)], lasts_s)
            case "process":
                self._to_process(kind, target, lasts_s)
            case "link":
                self._to_link(kind, target, lasts_s)
            case "fabric":
                self._to_fabric(kind, lasts_s)
            case "disk":
                self._to_disk(kind, lasts_s)
            case "machine" if self._machines:
                self._soon(lasts_s, self._machines.do(kind, target, lasts_s))

    def heal(self) -> None:
        """Undoes all that is not undone yet."""
        self.stop()
        for link in self._fabric.links.values():
            link.heal()
        if self._disk:
            self._disk.heal()
        if self._machines:
            self._machines.heal()
        self._fabric.read_log()
        self._fabric.signal_all(signal.SIGCONT)
        for person in self._people:
            person.thaw()

    def stop(self) -> None:
        """Begins nothing more. What is being undone is undone to its end: half of a cut would stay."""
        gevent.killall([greenlet for greenlet in self._later if not greenlet.dead])
        gevent.joinall(self._under_way)

    def _soon(self, seconds: float, then: Callable[[], object]) -> None:
        self._later.append(gevent.spawn_later(seconds, self._begin, then))

    def _begin(self, what: Callable[[], object]) -> None:
        self._under_way.append(gevent.spawn(what))

    def _to_client(self, kind: str, person: Person, lasts_s: float) -> None:
        match kind:
            case "hop":
                person.hop()
            case "drop":
                person.drop()
            case "freeze":
                person.freeze(lasts_s)
            case "away":
                person.go_away(lasts_s)
            case "leave" if isinstance(person, Zim) and person.rooms:
                room = self._rng.choice(sorted(person.rooms))
                person.leave(room)
                self._soon(lasts_s, lambda: person.join(room))

    def _to_process(self, kind: str, name: str, lasts_s: float) -> None:
        pid = self._fabric.pid(name)
        if not pid:
            self._say(f"           {name} does not run now")
            return
        match kind:
            case "stop":
                self._fabric.signal(pid, signal.SIGSTOP)
                self._note_wait(lasts_s)
                self._soon(lasts_s, lambda: self._fabric.signal(pid, signal.SIGCONT))
            case "twice":
                self._end(name, signal.SIGKILL)
                self._soon(lasts_s, lambda: self._end(name, signal.SIGKILL))
            case "return":
                self._end(name, signal.SIGKILL)
                self._later.append(gevent.spawn(self._end_at_return, name, lasts_s))
            case _:
                self._end(name, signal.SIGTERM if kind == "term" else signal.SIGKILL)

    def _end(self, name: str, how: int) -> None:
        """Ends the process that runs a node now, if there is one. Of a router the checker wants to know."""
        if pid := self._fabric.pid(name):
            self._fabric.signal(pid, how)
        if name.startswith("router"):
            self._history.router_ends.append(self._clock())
            if how == signal.SIGKILL:
                self._history.router_kills.append(self._clock())

    def _end_at_return(self, name: str, after_s: float) -> None:
        """Waits until a node listens again, and a little longer: comets register with it, or it with routers."""
        host, _, port = self._fabric.binds[name].removeprefix("tcp://").rpartition(":")
        until = self._clock() + BACK_S
        while self._clock() < until:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
                break
            gevent.sleep(LOOK_S)
        gevent.sleep(after_s)
        kind = {"router": "comet", "comet": "router"}.get(name.partition("-")[0], "")
        others = [other for other in self._fabric.names if kind and other.startswith(kind)]
        victim = self._rng.choice([name, *others[:1], *others[-1:]])
        self._say(f"{self._clock():7.2f} s  {name} is back, {victim} is killed")
        self._end(victim, signal.SIGKILL)

    def _to_link(self, kind: str, name: str, lasts_s: float) -> None:
        link = self._fabric.links[name]
        match kind:
            case "cut":
                link.cut()
            case "stall":
                link.stall()
            case "stall-in" | "stall-out":
                link.stall(kind.removeprefix("stall-"))
            case "pair-in" | "pair-out":
                link.pair(kind.removeprefix("pair-"))
            case "delay":
                link.delay(self._rng.choice((0.02, 0.1, 0.4)))
        self._soon(lasts_s, link.heal)

    def _to_fabric(self, kind: str, lasts_s: float) -> None:
        fabric = self._fabric
        match kind:
            case "rush":
                for name in fabric.names:
                    if name.startswith("comet"):
                        self._end(name, signal.SIGKILL)
            case "ctrl-z":
                for pid in fabric.supervisors():
                    fabric.signal(pid, signal.SIGTSTP)
                self._soon(lasts_s, self._go_on)
            case "sleep":
                fabric.signal_all(signal.SIGSTOP)
                self._note_wait(lasts_s)
                self._soon(lasts_s, lambda: fabric.signal_all(signal.SIGCONT))
            case "unread":
                fabric.ignore_log()
                self._soon(lasts_s, fabric.read_log)

    def _note_wait(self, lasts_s: float) -> None:
        self._history.waits.append((self._clock(), self._clock() + lasts_s))

    def _go_on(self) -> None:
        for pid in self._fabric.supervisors():
            self._fabric.signal(pid, signal.SIGCONT)

    def _to_disk(self, kind: str, lasts_s: float) -> None:
        if not self._disk:
            return
        self._note_wait(lasts_s)
        if kind == "hang":
            self._disk.hang(self._rng)
        else:
            self._disk.fill()
            self._end(self._rng.choice([n for n in self._fabric.names if n.startswith("router")]), signal.SIGKILL)
        self._soon(lasts_s, self._disk.heal)

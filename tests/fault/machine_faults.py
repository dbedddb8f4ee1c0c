"""What the schedule does to whole machines, and how it is undone."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterable

from tests.fault.clients import Clock
from tests.fault.history import Froze, History
from tests.fault.machines import MachinesFabric

Weather = tuple[float, float, float]  # delay_s, jitter_s, loss of a road

# None of it is unheard of between two halls of one provider, and the worst is a link about to break.
BAD: tuple[Weather, ...] = ((0.02, 0.01, 0.01), (0.1, 0.1, 0.03), (0.3, 0.2, 0.0), (0.01, 0.0, 0.15))
CLOCKS_S = (-3600.0, -300.0, -90.0, 45.0, 120.0, 600.0)


class MachineFaults:
    """Does to the machines of a fabric what the schedule says.

    Args:
        weather: of every road, while nothing is done to it.
    """

    def __init__(self, fabric: MachinesFabric, history: History, clock: Clock, weather: Weather) -> None:
        self._fabric, self._history, self._clock, self._weather = fabric, history, clock, weather
        self._machines = fabric.machines
        self._rng = random.Random(f"zim chaos machines {history.seed}")
        self._undone: list[Callable[[], None]] = []
        self._machines.pave(*weather)

    def do(self, kind: str, name: str, lasts_s: float) -> Callable[[], None]:
        """Begins it, and returns what undoes it. To undo it again does nothing."""
        undo = self._begin(kind, name, lasts_s)

        def once() -> None:
            if undo in self._undone:
                self._undone.remove(undo)
                undo()

        self._undone.append(undo)
        return once

    def heal(self) -> None:
        """Undoes all that is not undone yet."""
        while self._undone:
            self._undone.pop(0)()

    def _begin(self, kind: str, name: str, lasts_s: float) -> Callable[[], None]:
        kind, _, direction = kind.partition("-")
        match kind:
            case "off":
                return self._power_off(name)
            case "island":
                self._late(lasts_s)
                return self._machines.cut(*self._machines.roads(name, direction))
            case "apart":
                other = self._rng.choice([other for other in self._fabric.hosts if other != name])
                return self._machines.cut(*self._machines.roads(name, direction, other))
            case "bad":
                self._late(lasts_s)
                self._machines.pave(*self._rng.choice(BAD), name=name)
                return lambda: self._machines.pave(*self._weather, name=name)
            case "pause":
                return self._pause(name, lasts_s)
            case "clock":
                self._machines[name].set_clock(self._rng.choice(CLOCKS_S))
                return lambda: self._machines[name].set_clock(0.0)
        raise ValueError(f"{kind}: there is no such fault of a machine")

    def _power_off(self, name: str) -> Callable[[], None]:
        machine, history = self._machines[name], self._history
        machine.power_off()
        if any(node.startswith("router") for node in self._fabric.nodes_of(name)):
            history.router_ends.append(self._clock())
            history.router_kills.append(self._clock())
        return machine.boot

    def _pause(self, name: str, lasts_s: float) -> Callable[[], None]:
        stopped = self._machines[name].pids()
        self._signal(stopped, signal.SIGSTOP)
        self._history.waits.append((self._clock(), self._clock() + lasts_s))
        self._late(lasts_s)
        return lambda: self._signal(stopped, signal.SIGCONT)

    def _signal(self, pids: Iterable[int], how: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, how)
            except ProcessLookupError:
                continue

    def _late(self, lasts_s: float) -> None:
        """Clients may read late what was sent in time: TCP waits about as long again until it says it once more."""
        until = self._clock() + 2 * lasts_s + 1.0
        for client in self._history.clients:
            client.events.append(Froze(self._clock(), until))

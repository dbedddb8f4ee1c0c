"""Watches what must stay bounded while a fabric is pushed to its limits: the memory of each process, the log's size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import gevent
import psutil

from tests.fault.clients import Clock
from tests.fault.fabric import ChaosFabric
from tests.fault.history import History

LOOK_S = 1.0
# Far above what is seen, and far below what anything without a bound reaches. The router's own limits are 64 MiB for
# each comet that is behind, 64 MiB for what waits for its commit, and 256 MiB of live-only messages.
MEMORY_BYTES = 640 << 20
LOG_BYTES_S = 256 << 10  # of log, for each second of a run
UP = "zim up"


class Watch:
    """Looks once a second, until it is stopped.

    Attributes:
        memory: resident bytes of each process: when it was seen first, at most, last.
        log_bytes: the size of the log, by now.
    """

    def __init__(self, fabric: ChaosFabric, history: History, clock: Clock) -> None:
        self.memory: dict[str, tuple[int, int, int]] = {}
        self.log_bytes = 0
        self._fabric, self._history, self._clock = fabric, history, clock
        self._pids: dict[str, int] = {}
        self._seconds = 0.0
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Looks once more, and ends."""
        self._greenlet.kill()
        self._look()

    def wrong(self) -> list[str]:
        """What was not bounded."""
        found = [
            f"{name} had {most >> 20} MiB of memory"
            for name, (_, most, _) in self.memory.items()
            if most > MEMORY_BYTES
        ]
        if self.log_bytes > LOG_BYTES_S * max(self._seconds, 60.0):
            found.append(f"the log has {self.log_bytes >> 20} MiB after {self._seconds:.0f} s")
        return found

    def lines(self) -> Iterator[str]:
        """For people."""
        yield "memory, MiB first/most/last: " + ", ".join(
            f"{name} {first >> 20}/{most >> 20}/{last >> 20}" for name, (first, most, last) in self.memory.items()
        )
        yield f"log: {self.log_bytes / (1 << 20):.1f} MiB"

    def _run(self) -> None:
        while True:
            self._look()
            gevent.sleep(LOOK_S)

    def _look(self) -> None:
        fabric, now = self._fabric, self._clock()
        self._seconds = max(self._seconds, now)
        with contextlib.suppress(OSError):
            self.log_bytes = fabric.log_file.stat().st_size
        for name, process in [*((UP, psutil.Process(pid)) for pid in fabric.supervisors()), *fabric.running().items()]:
            with contextlib.suppress(psutil.Error):
                used = process.memory_info().rss
                first, most, _ = self.memory.get(name, (used, used, used))
                self.memory[name] = (first, max(most, used), used)
            if name.startswith("router") and self._pids.setdefault(name, process.pid) != process.pid:
                self._pids[name] = process.pid
                self._history.router_ends.append(max(0.0, now - LOOK_S))  # not when: it may have ended by itself

"""How long a node's loop keeps others waiting: what no part of the work should make long."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent

from zim.metrics import SECONDS, Histogram, Metric, gauge

LOOK_S = 0.02  # between two looks
WORST_S = 30.0  # the longest is that of so many seconds, up to twice as many


class LoopLag:
    """A greenlet that wakes up every LOOK_S, and looks how much later than that it is."""

    def __init__(self) -> None:
        self._seconds = Histogram(SECONDS)
        self._worst_s = self._worst_before_s = 0.0

    def watch(self) -> None:
        """For as long as the node lives. Switches."""
        due = time.monotonic() + LOOK_S
        anew = due + WORST_S
        while True:
            gevent.sleep(due - time.monotonic())
            now = time.monotonic()
            lag_s = max(0.0, now - due)
            self._seconds.observe(lag_s)
            self._worst_s = max(self._worst_s, lag_s)
            if now > anew:
                anew, self._worst_before_s, self._worst_s = now + WORST_S, self._worst_s, 0.0
            due = now + LOOK_S

    def worst_ms(self) -> float:
        """The longest of the last 30 to 60 seconds."""
        return round(1000 * max(self._worst_s, self._worst_before_s), 1)

    def metrics(self) -> Iterator[Metric]:
        """What it has seen."""
        yield self._seconds.metric("zim_node_loop_lag_seconds", "How long the node's loop lets others wait")
        worst_s = max(self._worst_s, self._worst_before_s)
        yield gauge("zim_node_loop_lag_worst_seconds", "The longest of the last 30 to 60 seconds", worst_s)

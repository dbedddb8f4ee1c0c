"""One way to yield: work that may take long gives way to sockets and to other greenlets, by time and not by counts.

`gevent.sleep(0)` is not that. It only puts the greenlet behind the other callbacks of this turn of the event loop, and
gevent looks at its clock, and then at the sockets, only after 50 callbacks (gevent `_ffi/loop.py`, `_run_callbacks`). A
timer of no time lets the loop finish its turn: the sockets are polled, and whoever is ready comes first.
`python -m benchmarks.fairness` measures both.
"""

from __future__ import annotations

import time

import gevent

BUDGET_S = 0.001  # of work between two turns of the event loop

_monotonic = time.monotonic
_turn, _until = -1, 0.0  # the last turn in which somebody asked, and when its budget is used up


def give_way() -> None:
    """Lets all others run, if this turn has taken its time. Cheap enough to be called after every small step.

    A turn's time begins with its first call: a process that was idle goes on at once.

    Switches: once in BUDGET_S at most.
    """
    global _turn, _until
    hub = gevent.get_hub()
    loop = hub.loop
    if loop.iteration == _turn:
        if _monotonic() < _until:
            return
        timer = loop.timer(0)
        try:
            hub.wait(timer)
        finally:
            timer.close()
    _turn, _until = loop.iteration, _monotonic() + BUDGET_S

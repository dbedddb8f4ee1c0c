"""One way to yield: work that may take long gives way to sockets and to other greenlets, by time and not by counts.

`gevent.sleep(0)` is not that. It only puts the greenlet behind the other callbacks of this turn of the event loop, and
gevent looks at its clock, and then at the sockets, only after 50 callbacks (gevent `_ffi/loop.py`, `_run_callbacks`). A
timer, however short, lets the loop finish its turn: the sockets are polled, and whoever is ready comes first.
`python -m benchmarks.fairness` measures both.
"""

from __future__ import annotations

import time

import gevent

BUDGET_S = 0.001  # of work between two turns of the event loop

_monotonic = time.monotonic
_until = 0.0  # when the budget of this turn is used up


def give_way() -> None:
    """Lets all others run, if this turn has taken its time. Cheap enough to be called after every small step.

    Switches: once in BUDGET_S at most.
    """
    global _until
    if _monotonic() >= _until:
        gevent.sleep(1e-6)
        _until = _monotonic() + BUDGET_S

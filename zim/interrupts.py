"""Ctrl-C while gevent's loop goes to sleep."""

from __future__ import annotations

import os
import signal

from gevent import get_hub

_kept: list[object] = []  # the watcher, which is to live as long as the program


def wake_at_signals() -> None:
    """From now on a signal wakes the loop, so that Python's handler runs at once.

    libev asks whether there was one before it waits. One that comes in between would be looked at when something else
    happens, which may be never (gevent 26.9, gevent_check_signals). To be called by the main thread.
    """
    ours, its = os.pipe()
    for end in (ours, its):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(its, warn_on_full_buffer=False)
    watcher = get_hub().loop.io(ours, 1, ref=False)  # 1: may be read
    watcher.start(_take, ours)
    _kept.append(watcher)


def _take(end: int) -> None:
    """In Python, and not os.read itself: before its first line the handler runs."""
    os.read(end, 1024)

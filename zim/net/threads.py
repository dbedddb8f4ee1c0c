"""What blocks goes into a thread, and only the calling greenlet waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gevent

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a job there. What it raises is raised here; gevent's pool would print it as well.

    Jobs that may run at the same time must not import the same module for the first time: see `names`.

    Switches.
    """
    results: list[T] = []

    def guarded() -> Exception | None:
        try:
            results.append(job(*args, **kwargs))
        except Exception as e:  # noqa: BLE001 it is raised again
            return e
        return None

    error = gevent.get_hub().threadpool.apply(guarded)
    if error is not None:
        raise error
    return results[0]

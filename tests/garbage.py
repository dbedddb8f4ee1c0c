"""What only the garbage collector finds: objects in circles, which stay in memory until it comes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def circles() -> Iterator[list[Any]]:
    """Fills the list at its end with what the code in it has left in circles. The code must not keep anything else."""
    found: list[Any] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

"""Memory that a storm has left free goes back to the system.

glibc keeps what is freed below something that lives on: after thousands of connections with half a packet each a comet
had 150 MiB of which nothing was in use. malloc_trim gives the pages back. It takes some tenths of a millisecond for
each MiB, and nothing else runs meanwhile; so it waits until the storm is over. Elsewhere than on glibc nothing is given
back.

Before that young garbage in circles is collected. A node that has nothing to do makes too few objects for the garbage
collector to come by itself, and pyzmq leaves the last message of a link, of up to 64 MiB, in a circle.
"""

from __future__ import annotations

import ctypes
import gc

import gevent

LOOK_S = 5.0
WORTH_BYTES = 4 << 20  # that are free and not given back yet
YOUNG = 1  # this generation and the one below: 40,000 objects at most, a few milliseconds
_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"  # man 3 mallinfo


class Leavings:
    """Whether there is something to give back. Pure."""

    def __init__(self) -> None:
        self._given_back = self._free_before = 0

    def is_due(self, free_bytes: int) -> bool:
        """Whether to give back what is free now.

        Args:
            free_bytes: of the heap, given back or not; what is given back is used again first.
        """
        self._given_back = min(self._given_back, free_bytes)
        is_calm = abs(free_bytes - self._free_before) < WORTH_BYTES
        self._free_before = free_bytes
        if not is_calm or free_bytes - self._given_back < WORTH_BYTES:
            return False
        self._given_back = free_bytes
        return True


class _Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS.split()]


def give_back() -> None:
    """Looks after the heap of this process, for ever. Switches."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2") or not hasattr(libc, "malloc_trim"):
        return
    libc.mallinfo2.restype = _Info
    leavings = Leavings()
    while True:
        gevent.sleep(LOOK_S)
        gc.collect(YOUNG)
        if leavings.is_due(libc.mallinfo2().fordblks):
            libc.malloc_trim(0)

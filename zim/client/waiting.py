"""Waiting for a socket, or for another thread. The same in threads and, monkey-patched, in greenlets."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading


class Waker:
    """Ends another thread's wait: a pair of sockets, and a byte on its way between them while somebody is to wake up.

    `wake` may be called by any thread, the rest by the one that waits.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may come in between
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """What becomes readable."""
        return self._reader.fileno()

    def wake(self) -> None:
        """Ends the wait, or the next one. Does nothing after close()."""
        with self._lock, contextlib.suppress(OSError):  # full: it wakes up anyway
            self._writer.send(b"\0")

    def clear(self) -> None:
        """Takes notice."""
        with contextlib.suppress(OSError):
            while self._reader.recv(4096):
                pass

    def close(self) -> None:
        """Gives the sockets back."""
        with self._lock:
            self._reader.close()
            self._writer.close()


def wait(sock: socket.socket | None, waker: Waker, timeout_s: float, *, to_write: bool = False) -> bool:
    """Waits until the socket can be read (or written), somebody calls `waker.wake()`, or the time is over.

    Returns:
        Whether the socket is ready.
    """
    poll = select.poll()  # select() cannot wait for files beyond 1023
    poll.register(waker.fileno(), select.POLLIN)
    if sock is not None:
        poll.register(sock.fileno(), select.POLLOUT if to_write else select.POLLIN)
    ready = poll.poll(max(0, math.ceil(timeout_s * 1000)))
    files = {file for file, _ in ready}
    if waker.fileno() in files:
        waker.clear()
    return sock is not None and sock.fileno() in files

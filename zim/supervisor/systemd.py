"""What is told to systemd, or to whoever else has started `zim up` and understands sd_notify(3).

All nodes are ready; a reload, or the end, has begun; who is missing. And, as long as the loop that does the work runs,
that it does (WATCHDOG=1). One datagram each, to the Unix socket that the environment names; without one nothing is
told.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence

import gevent
from gevent import socket

log = logging.getLogger(__name__)

SEND_S = 1.0  # for a datagram, if many wait
LOOK_S = 1.0  # how often it is looked who is missing
MOST_NAMED = 5


class Manager:
    """Who has started this process, and wants to know how it fares.

    Args:
        environment: of this process. What is for it alone is taken out: nodes must not speak in its name.
        pid: of this process.
    """

    def __init__(self, environment: MutableMapping[str, str], pid: int) -> None:
        self._path = socket_path(environment.pop("NOTIFY_SOCKET", ""))
        watched = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        self._watchdog_s = watchdog_s(*watched, pid)
        self._is_stopping = self._is_deaf = False
        self._status = ""  # as it was told last

    def ready(self) -> None:
        """All nodes are ready. May switch."""
        self._status = status(())
        self._tell("READY=1", f"STATUS={self._status}")

    def stopping(self) -> None:
        """The end has begun. May switch."""
        self._is_stopping = True
        self._tell("STOPPING=1", "STATUS=stopping")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Meanwhile a reload is under way. May switch."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            if not self._is_stopping:
                self._tell("READY=1")

    def follow(self, missing: Callable[[], Sequence[str]]) -> None:
        """Tells that the loop runs, and what has changed. For ever, if there is somebody who is told. Switches.

        Args:
            missing: what is not ready, in words.
        """
        while self._path is not None:
            lines = ["WATCHDOG=1"] if self._watchdog_s is not None else []
            is_now = status(missing())
            if is_now != self._status and not self._is_stopping:
                lines.append(f"STATUS={is_now}")
                self._status = is_now
            self._tell(*lines)
            gevent.sleep(min(LOOK_S, (self._watchdog_s or 2 * LOOK_S) / 2))

    def _tell(self, *lines: str) -> None:
        """One datagram. May switch."""
        if self._path is None or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.settimeout(SEND_S)
                s.connect(self._path)
                s.send("\n".join(lines).encode())
            self._is_deaf = False
        except OSError as e:
            if not self._is_deaf:
                log.warning("who has started this cannot be told", extra={"what": lines[0], "reason": e.strerror or e})
            self._is_deaf = True


def socket_path(named: str) -> bytes | None:
    """The address of a Unix socket, as NOTIFY_SOCKET says it; None for any other. `@` stands for the NUL of a name that
    is in no folder."""
    if named[:1] not in ("/", "@") or len(named) < 2:
        return None
    path = os.fsencode(named)
    return b"\0" + path[1:] if named[0] == "@" else path


def watchdog_s(usec: str, of_pid: str, pid: int) -> float | None:
    """Within how many seconds it has to be told again and again that the loop runs; None for never.

    Args:
        usec, of_pid: WATCHDOG_USEC, WATCHDOG_PID.
        pid: of this process.
    """
    if of_pid and of_pid != str(pid):
        return None
    is_number = usec.isascii() and usec.isdecimal() and len(usec) < 20
    return int(usec) / 1e6 if is_number and int(usec) else None


def status(missing: Sequence[str]) -> str:
    """A line for `systemctl status`."""
    if not missing:
        return "all nodes are ready"
    more = len(missing) - MOST_NAMED
    return "; ".join([*missing[:MOST_NAMED], *([f"and {more} more"] if more > 0 else [])])

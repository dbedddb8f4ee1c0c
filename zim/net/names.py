"""Names in the addresses of links, resolved by zim: libzmq would do it in its one I/O thread, where one name without an
answer holds up every link of the process.
"""

from __future__ import annotations

import _socket  # gevent has replaced what socket has; here a thread may block
import logging
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Protocol

import gevent
from gevent.threadpool import ThreadPool

log = logging.getLogger(__name__)

# Of their own: in gevent's, names without an answer would keep the log from its disk. One is made when it is needed.
THREADS = 32
TRY_S = 1.0  # for one address; then the next one of the name is tried, or the name looked up again
FIRST_S, MOST_S = 0.2, 5.0  # until a name that could not be resolved is tried again; doubled each time

_pools: list[ThreadPool] = []


class Connecting(Protocol):
    """What a name is resolved for: `zim.net.transport.Dealer` and `Outlet`."""

    endpoint: str

    def connect_to(self, endpoint: str) -> None:
        """From now on to this address alone."""

    def wait(self, is_connected: bool, timeout_s: float | None = None) -> bool:
        """Waits until it is so, or the time is up; whether it is. Switches."""


Lookup = Callable[[str, int], list[str]]


def host_and_port(endpoint: str) -> tuple[str, int] | None:
    """The name in `tcp://name:port`, and the port; nothing if it is a number, or a path: no need to look it up."""
    if not endpoint.startswith("tcp://"):
        return None
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return host, int(port)
    return None


def is_same(one: str, other: str) -> bool:
    """Two endpoints in numbers are one address. libzmq writes one as `127.0.0.1`, then as `[::ffff:127.0.0.1]`."""
    return _number(one) == _number(other)


def _number(endpoint: str) -> tuple[str, str]:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    address = ip_address(host.strip("[]"))
    return str(getattr(address, "ipv4_mapped", None) or address), port


def look_up(host: str, port: int) -> list[str]:
    """The endpoints of a name, best first. Switches: until a thread has the answer, which may take half a minute.

    Raises:
        OSError: there is none.
    """
    if not _pools:
        _pools.append(ThreadPool(THREADS))
    try:
        name = host.encode("idna")
    except UnicodeError as error:  # a label is empty or too long
        raise OSError(str(error)) from None
    found: list[str] | OSError = _pools[0].apply(_look_up, (name, port))
    if isinstance(found, OSError):
        raise found
    return found


def _look_up(name: bytes, port: int) -> list[str] | OSError:
    """In a thread. Its error is a value: gevent would print one that leaves the thread.

    Text would be encoded there, and the first time Python imports what for. Threads that import one module wait for
    each other with gevent's locks, and one that waits may never be told (gevent issue 349).
    """
    try:
        found = _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM)
    except OSError as error:
        return error
    numbers = [str(address[0]) for *_, address in found]
    return [f"tcp://[{n}]:{port}" if ":" in n else f"tcp://{n}:{port}" for n in dict.fromkeys(numbers)]


def follow(link: Connecting, peer: str, lookup: Lookup = look_up) -> None:
    """Keeps a link at what its name means; for as long as it lives. When it breaks the name is looked up anew.

    Args:
        peer: the node's name, for the log.

    Switches: to wait.
    """
    name = host_and_port(link.endpoint)
    assert name is not None
    wait_s, said, at = FIRST_S, "", ""
    while True:
        try:
            found = lookup(*name)
        except OSError as error:
            if str(error) != said:
                said = str(error)
                log.warning("a peer's name cannot be resolved", extra={"peer": peer, "host": name[0], "error": said})
            gevent.sleep(wait_s)
            wait_s = min(2 * wait_s, MOST_S)
            continue
        if said:
            log.info("a peer's name is resolved", extra={"peer": peer, "host": name[0]})
        wait_s, said = FIRST_S, ""
        if connected := _try_each(link, at, found):
            at = connected
            link.wait(is_connected=False)


def _try_each(link: Connecting, at: str, found: Iterable[str]) -> str:
    """Connects to one address after the other, first to the one that it was last; to which, or "". Switches."""
    for endpoint in sorted(found, key=lambda one: one != at):
        link.connect_to(endpoint)
        if link.wait(is_connected=True, timeout_s=TRY_S):
            return endpoint
    return ""

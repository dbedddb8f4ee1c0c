"""Addresses of a topology that nodes could not listen at, all of them at once, before anything is started."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from gevent import socket

from zim.net.holders import in_use
from zim.topology import Comet, ListenAddress, Listeners, Logic, Node

_WHY = {
    errno.EADDRNOTAVAIL: "is no address of this machine",
    errno.EACCES: "may not be listened at by this user: ports below 1024 are the system's",
}


def unusable(nodes: Iterable[Node], admin: Listeners) -> list[str]:
    """A sentence for each: who has it, or why nobody can, and which key of the topology to change. Names are not
    resolved, and left out.

    Args:
        admin: of `zim up` itself.
    """
    found = ((name, _problem(key, at)) for name, key, at in _all(nodes, admin))
    return [f"{name}: {problem}" for name, problem in found if problem]


def _all(nodes: Iterable[Node], admin: Listeners) -> Iterator[tuple[str, str, ListenAddress]]:
    for at in admin:
        yield "zim up", "fabric.admin", at
    for node in nodes:
        listeners = {"bind": (node.bind,), "admin": node.admin}
        if isinstance(node, Logic):
            listeners["http"] = node.http
        if isinstance(node, Comet):
            listeners |= {"tcp": node.tcp, "ws": node.ws}
        yield from ((node.name, key, at) for key, addresses in listeners.items() for at in addresses)


def _problem(key: str, at: ListenAddress) -> str:
    ip = at.parsed.ip
    if ip is None:
        return ""
    try:
        with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as whoever listens there does
            s.bind((str(ip), at.parsed.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return in_use(key, at.address)
        why = _WHY.get(error.errno or 0, f"cannot be listened at: {error.strerror}")
        return f"{key} {at.address} {why}; change {key} in the topology"
    return ""

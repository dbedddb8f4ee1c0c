"""Ports of a topology that somebody else has, all of them at once, before anything is started."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from gevent import socket

from zim.net.holders import in_use
from zim.topology import Comet, ListenAddress, Listeners, Logic, Node


def ports_in_use(nodes: Iterable[Node], admin: Listeners) -> list[str]:
    """A sentence for each, who has it and which key of the topology to change. Names are not resolved, and left out.

    Args:
        admin: of `zim up` itself.
    """
    return [f"{name}: {in_use(key, at.address)}" for name, key, at in _all(nodes, admin) if _is_in_use(at)]


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


def _is_in_use(at: ListenAddress) -> bool:
    ip = at.parsed.ip
    if ip is None:
        return False
    with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as whoever listens there does
        try:
            s.bind((str(ip), at.parsed.port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False

"""What a client's socket is set to, and how its address is told."""

from __future__ import annotations

import sys
from typing import Any, cast

from gevent import socket


def prepare(sock: socket.socket, keepalive_s: int) -> bool:
    """A client's socket: no Nagle, and TCP keep-alive probes after that many idle seconds (0: none).

    Returns:
        False if the client was gone before it was here; the socket is closed then.
    """
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if keepalive_s:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
            sock.setsockopt(socket.IPPROTO_TCP, cast(int, getattr(socket, idle)), keepalive_s)
    except OSError:
        sock.close()
        return False
    return True


def shown_address(address: tuple[Any, ...]) -> str:
    """An address of the socket module's, for people: `127.0.0.1:8080`, `[::1]:8080`."""
    host, port, *_ = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""What a client's socket is set to."""

from __future__ import annotations

import sys
from typing import cast

from gevent import socket


def prepare(sock: socket.socket, keepalive_s: int) -> None:
    """A client's socket: no Nagle, and TCP keep-alive probes after that many idle seconds (0: none)."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if keepalive_s:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
        sock.setsockopt(socket.IPPROTO_TCP, cast(int, getattr(socket, idle)), keepalive_s)

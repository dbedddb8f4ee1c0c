"""Accepting clients: what both listeners of a comet have in common."""

from __future__ import annotations

import errno
import logging
import sys
from typing import Any, cast

import gevent
from gevent import socket
from gevent.server import StreamServer

from zim.errors import NodeError

log = logging.getLogger(__name__)

BACKLOG = 4_096
PAUSE_S = 0.5  # before accepting again on a machine that is full

_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_GONE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM}


class PatientAccept(StreamServer):
    """A full machine is not a reason to crash, nor to print a traceback: log, wait, go on."""

    def do_read(self) -> Any:
        """The next client, or nothing. Runs in the hub: what may wait, as logging may, is for a greenlet."""
        try:
            return super().do_read()
        except OSError as e:
            if e.errno in _FULL:
                gevent.spawn(log.warning, "cannot accept, waiting", extra={"error": e.strerror})
                self.stop_accepting()
                gevent.spawn_later(PAUSE_S, self._accept_again)
            elif e.errno not in _GONE:
                raise
            return None

    def _accept_again(self) -> None:
        if self.started:
            self.start_accepting()

    def bind(self, key: str) -> None:
        """Takes the address.

        Args:
            key: the topology's, for the error.

        Raises:
            NodeError: it is in use, or cannot be bound.
        """
        try:
            self.init_socket()
        except OSError as e:
            raise NodeError(f"{key} {self.address[0]}:{self.address[1]}: {e.strerror}") from None


def prepare(sock: socket.socket, keepalive_s: int) -> None:
    """A client's socket: no Nagle, and TCP keep-alive probes after that many idle seconds (0: none)."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if keepalive_s:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
        sock.setsockopt(socket.IPPROTO_TCP, cast(int, getattr(socket, idle)), keepalive_s)

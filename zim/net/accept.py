"""Accepting clients, on a machine that may be full: what all listeners have in common."""

from __future__ import annotations

import errno
import logging
from contextlib import suppress
from typing import Any

import gevent
import gevent.socket
from gevent.server import StreamServer

from zim.errors import NodeError
from zim.net.holders import in_use
from zim.net.pipe import SocketPipe

log = logging.getLogger(__name__)

BACKLOG = 4_096
LINGER_S = 0.5  # for a client to read why it is not let in
PAUSE_S = 0.1  # before the next try when the machine has no more files or memory

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def listen(key: str, address: tuple[str, int]) -> gevent.socket.socket:
    """A listening socket. Clients may connect from now on; they wait until somebody accepts them.

    Args:
        key: of the address in the topology, for the error.

    Raises:
        NodeError: the address cannot be had.
    """
    host, port = address
    family = gevent.socket.AF_INET6 if ":" in host else gevent.socket.AF_INET
    try:
        return gevent.socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise NodeError(in_use(key, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")) from None
        reason = str(error.strerror).partition(" (")[0]  # Python adds the address to it
        raise NodeError(f"{key} {host}:{port}: {reason}") from error


class Farewell:
    """Says a word to those who are not let in, in the accept loop.

    Who closes with bytes of the other end unread resets the connection, and the word may be lost. So sockets stay for a
    moment; but only some, for in a flood they are what is short.
    """

    def __init__(self, most: int = 100) -> None:
        self._most, self._left = most, most

    def say(self, sock: gevent.socket.socket, words: bytes) -> None:
        """Sends as much as goes at once, and closes. Does not switch."""
        pipe = SocketPipe(sock)
        with suppress(OSError):
            pipe.receive(waits=False)  # what it has asked, if that is here
        try:
            pipe.send(words)
        except OSError:
            sock.close()
            return
        pipe.shutdown()
        if self._left:
            self._left -= 1
            gevent.spawn_later(LINGER_S, self._close, sock)
        else:
            sock.close()

    def _close(self, sock: gevent.socket.socket) -> None:
        self._left += 1
        sock.close()


class PatientServer(StreamServer):
    """A full machine is not a reason to crash, nor to print a traceback: it says so once, waits, and goes on."""

    _is_full = False

    def stop_accepting_any(self) -> None:
        """Lets in who waits in the kernel's queue, and nobody after them: who comes is refused, and goes elsewhere.
        What was accepted goes on. Does not switch."""
        for _ in range(BACKLOG):
            try:
                accepted = self.do_read() if self.started else None
            except OSError:
                break
            if accepted is None:
                break
            self.do_handle(*accepted)
        StreamServer.close(self)

    def do_read(self) -> Any:
        """Accepts a connection, or nothing. Runs in the hub, so what waits or logs is handed to a greenlet."""
        try:
            accepted = super().do_read()
        except OSError as error:
            if self.is_fatal_error(error):
                raise
            if error.errno in _FULL:
                self.stop_accepting()
                gevent.spawn_later(PAUSE_S, self._accept_again)
                if not self._is_full:
                    self._is_full = True
                    gevent.spawn(log.error, "cannot accept connections", extra={"error": error.strerror})
            return None  # else the client is gone already
        if accepted is None and self._is_full:  # nobody waits, and there was a file for one: accept() takes that first
            self._is_full = False
            gevent.spawn(log.warning, "accepting again")
        return accepted

    def _accept_again(self) -> None:
        if self.started:
            self.start_accepting()

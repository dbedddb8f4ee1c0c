"""A connection's bytes, without waiting for them. The only place that knows the inside of gevent's sockets."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast

import gevent
from gevent import socket
from typing_extensions import override

READ_BYTES = 4_096

_INFO = struct.Struct("=120xQQ")  # linux/tcp.h, tcp_info: tcpi_bytes_acked, tcpi_bytes_received

T = TypeVar("T")


class Pipe(Protocol):
    """Bytes to one client and from it. All but `close` raise OSError once the other end is gone.

    Attributes:
        send: takes bytes, and returns how many of them it could pass on; BlockingIOError, or 0, if none. Does not
            switch. It stays the same, so that it may be kept.
    """

    __slots__ = ()
    send: Callable[[bytes], int]

    @property
    def is_begun(self) -> bool:
        """Of the bytes that it did not pass on some are under way: they must be offered next, as they were."""

    def send_many(self, chunks: Sequence[bytes]) -> int:
        """As `send`, of several in a row."""

    def wait_writable(self) -> None:
        """Until it may take more. Switches."""

    def receive(self, waits: bool) -> bytes | None:
        """What has come; b"" if the other end has closed.

        Args:
            waits: if nothing is there, wait for it, which switches; otherwise return None.
        """

    def traffic(self) -> tuple[int, int] | None:
        """How many bytes the other end has confirmed, and how many came from it; None if the system does not tell."""

    def park(self, go_on: Callable[[T], None], what: T) -> None:
        """Calls go_on(what) in a greenlet of its own once something has come. Until then there is no greenlet, which
        would cost 7 kB, only a watcher of the event loop."""

    def shutdown(self) -> None:
        """Nothing more will be sent; what was sent still arrives."""

    def close(self) -> None:
        """Ends it. Who waits in it gets an OSError; who is parked is not called."""


def _unpark(sock: Any, go_on: Callable[[T], None], what: T) -> None:
    """In the hub. No method of an object: gevent's close() throws into the callback's `__self__`."""
    if sock._read_event is not None:  # else it was closed in the meantime
        sock._read_event.stop()
        gevent.spawn_raw(go_on, what)


class SocketPipe(Pipe):
    """A plain socket of gevent's."""

    __slots__ = ("_socket", "send")
    is_begun = False

    def __init__(self, sock: socket.socket) -> None:
        self._socket = cast(Any, sock)
        self.send = self._socket._sock.send  # gevent's own would wait when the socket is full

    @override
    def send_many(self, chunks: Sequence[bytes]) -> int:
        return cast(int, self._socket._sock.sendmsg(chunks))

    @override
    def wait_writable(self) -> None:
        self._socket._wait(self._socket._write_event)

    @override
    def receive(self, waits: bool) -> bytes | None:
        try:
            return cast(bytes, self._socket._sock.recv(READ_BYTES))
        except BlockingIOError:
            return cast(bytes, self._socket.recv(READ_BYTES)) if waits else None

    def peek(self, size: int) -> bytes | None:
        """At most so much of what has come; it can be read again. b"" if the other end has closed, None for nothing."""
        try:
            return cast(bytes, self._socket._sock.recv(size, socket.MSG_PEEK))
        except BlockingIOError:
            return None

    def take(self, size: int) -> bytes:
        """So much of what `peek` has shown."""
        return cast(bytes, self._socket._sock.recv(size))

    @override
    def traffic(self) -> tuple[int, int] | None:
        try:
            info = self._socket._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            return cast(tuple[int, int], _INFO.unpack(info))
        except (AttributeError, OSError, struct.error):  # not Linux, or it is closed, or an old kernel
            return None

    @override
    def park(self, go_on: Callable[[T], None], what: T) -> None:
        if self._socket._read_event is not None:  # else the socket is closed already
            self._socket._read_event.start(_unpark, self._socket, go_on, what)

    @override
    def shutdown(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    @override
    def close(self) -> None:
        self._socket.close()

"""A client's line to a comet: a socket and how packets lie on it. One thread uses it, others may wake that one."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import time
from typing import Any

from zim.client.address import CometAddress
from zim.client.errors import ConnectionLost, Unreachable
from zim.client.tls import TlsWire, why
from zim.client.waiting import Waker, wait
from zim.client.wire import TcpWire, Wire
from zim.client.ws import WsWire
from zim.errors import ZimError
from zim.program import zim_command
from zim.protocol.frame import Packet

_RECV_BYTES = 64 << 10


class Line:
    """Sends and receives packets.

    Attributes:
        broken: why nothing more can be read: after the packets that `receive` has just returned, it ends.
    """

    def __init__(
        self,
        address: CometAddress,
        waker: Waker,
        timeout_s: float,
        max_packet_bytes: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Does not connect yet.

        Args:
            timeout_s: for connecting, and for a write.
            tls: whom to believe, for an address with TLS.
        """
        self.address = address
        self.broken: ZimError | None = None
        self._waker = waker
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._is_cut = False
        is_ws = address.transport == "ws"
        self._wire: Wire = (
            WsWire(address.netloc, address.path, max_packet_bytes) if is_ws else TcpWire(max_packet_bytes)
        )
        if address.is_tls and tls is not None:
            self._wire = TlsWire(self._wire, tls, str(address), address.host)

    @property
    def is_open(self) -> bool:
        """Packets may be sent: on WebSocket the handshake is over."""
        return self._wire.is_open

    def connect(self) -> None:
        """Connects, and asks for the handshake.

        Raises:
            Unreachable: it cannot be made.
            ConnectionLost: somebody has called `cut`.
        """
        host, port = self.address.host, self.address.port
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"cannot find {host}: {why(error)}") from None
        problem = f"{host} has no address"
        for family, kind, protocol, _, place in places:
            problem = self._try(socket.socket(family, kind, protocol), place)
            if not problem:
                self._write(self._wire.opening)
                return
        raise Unreachable(problem)

    def _try(self, sock: socket.socket, place: tuple[Any, ...]) -> str:
        """Connects to one of the host's places; says what is wrong, or nothing."""
        sock.setblocking(False)
        deadline = time.monotonic() + self._timeout_s
        code = sock.connect_ex(place)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
            code = errno.ETIMEDOUT
            while not self._is_cut and (left_s := deadline - time.monotonic()) > 0:
                if wait(sock, self._waker, left_s, to_write=True):
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    break
            self._waker.wake()  # that wait may have swallowed what was meant for the next one
        if code == 0 and not self._is_cut:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = sock
            return ""
        sock.close()
        if self._is_cut:
            raise ConnectionLost("closed")
        if code == errno.ECONNREFUSED:
            return f"nothing listens on {self.address}; is the fabric up? {zim_command()} up"
        if code == errno.ETIMEDOUT:
            return f"no connection to {self.address} in {self._timeout_s:g} s"
        return f"no connection to {self.address}: {os.strerror(code)}"

    def send(self, *packets: Packet) -> None:
        """Sends these.

        Raises:
            ConnectionLost: it has ended, or the other side reads nothing.
        """
        self._write(b"".join(map(self._wire.send, packets)))

    def receive(self, timeout_s: float) -> list[Packet] | None:
        """What has come; maybe not a whole packet. Afterwards look at `broken`.

        Returns:
            Nothing if nothing came in time, or somebody called `wake` meanwhile.

        Raises:
            ConnectionLost: it has ended.
        """
        data = self._read(timeout_s)
        if data is None:
            return None
        if not data:
            raise ConnectionLost(f"closed by the server{self._wire.of_silence}")
        packets = self._wire.receive(data)
        self.broken = self._wire.broken
        with contextlib.suppress(*[ConnectionLost] if self.broken else []):  # why it broke is the better reason
            self._write(self._wire.replies())
        return packets

    def cut(self) -> None:
        """Ends it now, from any thread: whoever uses it gets ConnectionLost."""
        self._is_cut = True
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._waker.wake()

    def say_goodbye(self) -> None:
        """Says the last words of the wire, if they can still be said."""
        if self._socket is not None and self._wire.is_open and not self._is_cut:
            with contextlib.suppress(ConnectionLost):
                self._write(self._wire.closing())

    def close(self) -> None:
        """Hangs up."""
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _read(self, timeout_s: float) -> bytes | None:
        sock = self._open_socket()
        try:
            with contextlib.suppress(BlockingIOError):
                return sock.recv(_RECV_BYTES)
            with contextlib.suppress(BlockingIOError):
                return sock.recv(_RECV_BYTES) if wait(sock, self._waker, timeout_s) else None
        except OSError as error:
            raise ConnectionLost(f"connection lost: {why(error)}{self._wire.of_silence}") from None
        return None

    def _write(self, data: bytes) -> None:
        sock = self._open_socket() if data else None
        deadline = 0.0
        while sock is not None and data:
            try:
                data = data[sock.send(data) :]
            except BlockingIOError:
                deadline = deadline or time.monotonic() + self._timeout_s
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise ConnectionLost(f"the server reads nothing for {self._timeout_s:g} s") from None
                wait(sock, self._waker, left_s, to_write=True)
                if self._is_cut:
                    raise ConnectionLost("closed") from None
            except OSError as error:
                raise ConnectionLost(f"connection lost: {why(error)}{self._wire.of_silence}") from None
        if deadline:
            self._waker.wake()  # that wait may have swallowed what was meant for the next one

    def _open_socket(self) -> socket.socket:
        if self._socket is None or self._is_cut:
            raise ConnectionLost("closed")
        return self._socket

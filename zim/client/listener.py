"""Listens to one user's pushes, for as long as the application wants.

    listener = Listener("127.0.0.1:8090", token="7", transport="ws")
    for message in listener:
        print(message.body)

Plain blocking sockets with timeouts: the same code runs in a thread and, monkey-patched, in a greenlet.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from zim.client.address import split_address
from zim.client.backoff import Backoff
from zim.client.errors import ClientError, ConnectionLost, LoginRefused, WireError
from zim.client.wire import (
    MAX_PACKET_BYTES,
    OP_AUTH,
    OP_AUTH_REPLY,
    OP_DISCONNECT,
    OP_HEARTBEAT,
    OP_HEARTBEAT_REPLY,
    Packet,
    TcpDialect,
)
from zim.client.ws import WsDialect

_RECV_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Message:
    """What was pushed.

    Attributes:
        op: 5, unless the publisher named another.
        body: the application's bytes. Over WebSocket they are the JSON that the frame carried: a body that is not
            JSON has become a JSON string on its way, an empty one `{}`.
    """

    op: int
    body: bytes


@dataclass(frozen=True, slots=True)
class State:
    """What became of the connection.

    Attributes:
        name: "connecting", "connected", "disconnected" (it was lost, or could not be made), or "refused" (the fabric
            ended it before it answered the login). After the last two the listener tries again.
        address: of the comet.
        reason: why it was lost or refused; for a person.
        retry_s: after how many seconds it tries again.
    """

    name: Literal["connecting", "connected", "disconnected", "refused"]
    address: str
    reason: str = ""
    retry_s: float = 0.0


class Listener:
    """Connects, logs in, sends heartbeats, gives what arrives, and comes back when the connection is lost.

    Heartbeats are sent while the application waits for the next message: one that is busy with a message for longer
    than the fabric's heartbeat window (5 minutes by default) is disconnected, and connects again.
    What is pushed while it is not connected is not received.
    """

    def __init__(
        self,
        address: str,
        token: str,
        transport: Literal["tcp", "ws"] = "tcp",
        *,
        heartbeat_s: float = 30.0,
        timeout_s: float = 10.0,
        path: str = "/sub",
        max_packet_bytes: int = MAX_PACKET_BYTES,
        backoff: Backoff | None = None,
        on_state: Callable[[State], object] | None = None,
    ) -> None:
        """Does not connect yet; iterating does.

        Args:
            address: `host:port` of a comet.
            token: who this is; with the default token handler of the fabric a number, the user's id.
            transport: "tcp" or "ws"; goim v1's packets on either.
            heartbeat_s: between two heartbeats.
            timeout_s: for connecting and logging in, for a write, and for the reply to a heartbeat.
            path: of the WebSocket.
            max_packet_bytes: a packet or WebSocket message above this ends the connection.
            backoff: the waits between two attempts; 0.2 s to 10 s by default.
            on_state: called with each State, by the thread that iterates.

        Raises:
            AddressError: the address is not `host:port`.
        """
        self.address = address
        self._host_port = split_address(address)
        self._token = token
        self._transport = transport
        self._heartbeat_s = heartbeat_s
        self._timeout_s = timeout_s
        self._path = path
        self._max_packet_bytes = max_packet_bytes
        self._backoff = backoff or Backoff()
        self._on_state = on_state or (lambda _state: None)
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._is_busy = False

    def __iter__(self) -> Iterator[Message]:
        """Same as messages()."""
        return self.messages()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def messages(self) -> Iterator[Message]:
        """The messages as they arrive, without end until close(). Only one iteration at a time.

        Lost connections are told to `on_state`, never raised.
        """
        while not self._closed.is_set():
            self._tell("connecting")
            since = None
            try:
                packets, dialect = self._log_in()
                since = time.monotonic()
                self._tell("connected")
                yield from self._receive(dialect, packets)
            except LoginRefused as error:
                self._pause("refused", str(error), since)
            except ClientError as error:
                self._pause("disconnected", str(error), since)
            except WireError as error:
                self._pause("disconnected", f"the server broke the wire: {error}", since)
            finally:
                self._hang_up()

    def close(self) -> None:
        """Ends the iteration. Any thread or greenlet may call it, and more than once."""
        self._closed.set()
        with self._lock:
            if self._socket is not None:
                # Only the reading side: that wakes the reader, which then says its last words and closes. One that
                # is busy with a message may never come back.
                _shut_down(self._socket, socket.SHUT_RDWR if self._is_busy else socket.SHUT_RD)

    def _tell(self, name: Literal["connecting", "connected"]) -> None:
        self._on_state(State(name, self.address))

    def _pause(self, name: Literal["disconnected", "refused"], reason: str, since: float | None) -> None:
        """Tells the state and waits until it is time to try again, or for close()."""
        self._hang_up()
        if self._closed.is_set():
            return
        # A server that lets everybody in and throws them out at once must not be hammered.
        if since is not None and time.monotonic() - since >= self._backoff.cap_s:
            self._backoff.reset()
        retry_s = self._backoff.next_s()
        self._on_state(State(name, self.address, reason, retry_s))
        self._closed.wait(retry_s)

    def _log_in(self) -> tuple[list[Packet], TcpDialect | WsDialect]:
        """Connects and authenticates. Gives the packets that came with the reply, too.

        Raises:
            ConnectionLost: no connection, or no reply in time.
            LoginRefused: the server ended it first.
            WireError: the server broke the wire.
        """
        deadline = time.monotonic() + self._timeout_s
        self._connect()
        dialect: TcpDialect | WsDialect
        if self._transport == "ws":
            dialect = WsDialect(self.address, self._path, self._max_packet_bytes)
        else:
            dialect = TcpDialect(self._max_packet_bytes)
        auth = dialect.send(Packet(OP_AUTH, self._auth_body(), seq=1))
        self._write(dialect.opening if dialect.opening else auth)
        has_asked = not dialect.opening
        packets: list[Packet] = []
        while not packets:
            data = self._read(deadline - time.monotonic())
            if data is None:
                raise ConnectionLost(f"no answer to the login in {self._timeout_s:g} s")
            if not data:
                raise LoginRefused("closed by the server before it answered the login")
            packets = dialect.receive(data)
            if isinstance(dialect.broken, ConnectionLost) and not packets:
                raise LoginRefused(str(dialect.broken))
            if dialect.broken is not None and not packets:
                raise dialect.broken
            self._write(dialect.replies())
            if dialect.is_open and not has_asked:
                self._write(auth)
                has_asked = True
        first = packets.pop(0)
        if first.op == OP_DISCONNECT:
            raise LoginRefused(f"the server says: {first.body.decode(errors='replace')}")
        if first.op != OP_AUTH_REPLY:
            raise WireError(f"op {first.op} where the login's reply should be")
        return packets, dialect

    def _receive(self, dialect: TcpDialect | WsDialect, packets: list[Packet]) -> Iterator[Message]:
        """The messages of one connection.

        Raises:
            ConnectionLost: it ended.
            WireError: the server broke the wire.
        """
        heartbeat_at = time.monotonic() + self._heartbeat_s
        reply_by: float | None = None
        while True:
            for packet in packets:
                if packet.op == OP_DISCONNECT:
                    raise ConnectionLost(f"disconnected by the server: {packet.body.decode(errors='replace')}")
                if packet.op not in (OP_HEARTBEAT_REPLY, OP_AUTH_REPLY):
                    self._is_busy = True
                    yield Message(packet.op, packet.body)
                    self._is_busy = False
                if self._closed.is_set():
                    self._say_goodbye(dialect)
                    return
            if dialect.broken is not None:
                raise dialect.broken
            now = time.monotonic()
            if now >= heartbeat_at:
                self._write(dialect.send(Packet(OP_HEARTBEAT)))
                heartbeat_at = now + self._heartbeat_s
                reply_by = now + self._timeout_s if reply_by is None else reply_by
            # Read before judging: after a long pause of the application the reply is there, unread.
            data = self._read((heartbeat_at if reply_by is None else min(heartbeat_at, reply_by)) - now)
            packets = []
            if data:
                reply_by = None
                packets = dialect.receive(data)
                self._write(dialect.replies())
            elif self._closed.is_set():
                self._say_goodbye(dialect)
                return
            elif data is not None:
                raise ConnectionLost("closed by the server")
            elif reply_by is not None and time.monotonic() >= reply_by:
                raise ConnectionLost(f"no reply to a heartbeat in {self._timeout_s:g} s")

    def _auth_body(self) -> bytes:
        """goim's WebSocket clients name a numeric token as a JSON number, everything else as a string."""
        if self._transport == "tcp":
            return self._token.encode()
        is_number = re.fullmatch(r"-?(0|[1-9][0-9]*)", self._token)
        return self._token.encode() if is_number else json.dumps(self._token).encode()

    def _connect(self) -> None:
        host, port = self._host_port
        problem = f"{host} has no address"
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ConnectionLost(f"cannot find {host}: {error}") from None
        for family, kind, protocol, _, place in places:
            sock = socket.socket(family, kind, protocol)
            with self._lock:
                self._socket = sock
            try:
                sock.settimeout(self._timeout_s)
                if not self._closed.is_set():
                    sock.connect(place)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return
            except ConnectionRefusedError:
                problem = f"nothing listens on {self.address}; is the fabric up? zim up"
            except TimeoutError:
                problem = f"no connection to {self.address} in {self._timeout_s:g} s"
            except OSError as error:
                problem = f"no connection to {self.address}: {error.strerror or error}"
            self._hang_up()
        raise ConnectionLost(problem)

    def _read(self, timeout_s: float) -> bytes | None:
        """What has arrived; b"" at the end of the stream, None if nothing came in time."""
        sock = self._open_socket()
        if self._closed.is_set():
            return b""
        try:
            sock.settimeout(max(timeout_s, 0.001))
            return sock.recv(_RECV_BYTES)
        except TimeoutError:
            return None
        except OSError as error:
            if self._closed.is_set():  # gevent wakes a reader with an error
                return b""
            raise ConnectionLost(f"connection lost: {error.strerror or error}") from None

    def _write(self, data: bytes) -> None:
        if not data:
            return
        sock = self._open_socket()
        try:
            sock.settimeout(self._timeout_s)
            sock.sendall(data)
        except TimeoutError:
            raise ConnectionLost(f"the server reads nothing for {self._timeout_s:g} s") from None
        except OSError as error:
            raise ConnectionLost(f"connection lost: {error.strerror or error}") from None

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionLost("closed")
        return self._socket

    def _say_goodbye(self, dialect: TcpDialect | WsDialect) -> None:
        try:
            self._write(dialect.closing)
        except ConnectionLost:
            return

    def _hang_up(self) -> None:
        with self._lock:
            sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()


def _shut_down(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        return

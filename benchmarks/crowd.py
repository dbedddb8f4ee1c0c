"""Subscribers, thousands of them in one loop. Most only count; a sample reads every message.

The loop must cost less than the fabric it measures. Every body has MARK in it once, so a subscriber counts messages
exactly without parsing frames; the sample parses everything, and checks order, duplicates and holes.
"""

from __future__ import annotations

import errno
import json
import resource
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.certificate import wrap
from benchmarks.fabric import BenchmarkError
from benchmarks.publisher import MARK
from zim.client.address import split_address
from zim.client.wire import TcpWire
from zim.client.ws import WsWire
from zim.protocol.frame import Op, Packet

_PER_SOURCE_ADDRESS = 25_000  # a kernel has about 28,000 ports for one pair of addresses and one target port
_IP_BIND_ADDRESS_NO_PORT = 24  # Linux: choose the port when connecting, or bind() runs out of them
_MARK_BYTES = frozenset(MARK)
_TAIL = len(MARK) - 1


class _Reader(Protocol):
    def read(self) -> None: ...


@dataclass
class Sample:
    """What one subscriber of the sample received, in order.

    Attributes:
        numbers: of the messages.
        connections: over which of the publisher's connections each was pushed.
        latencies_s: HTTP request to here.
    """

    numbers: list[int] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)


class Crowd:
    """All subscribers, in room 1.

    Attributes:
        received: messages so far, over all subscribers.
        samples: what the sample received.
        lost: why subscribers were disconnected.
    """

    def __init__(
        self,
        addresses: list[str],
        transport: str,
        sample: int = 20,
        token: Callable[[int], bytes] = lambda number: b"%d" % (number + 1),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            token: of a subscriber, by number from 0.
            tls: whom to believe; None without TLS.
        """
        self.tls = tls
        self._addresses = addresses
        self.token = token
        self._transport = transport
        self._sample = sample
        self.selector = selectors.DefaultSelector()
        self._buffer = bytearray(_TAIL + (256 << 10))
        self._view = memoryview(self._buffer)[_TAIL:]
        self._sockets: list[socket.socket] = []
        self._logging_in: set[_Login] = set()
        self.counters: list[_Counter | _Sampler] = []
        self.received = 0
        self.samples: list[Sample] = []
        self.lost: list[str] = []

    def connect(self, count: int, window: int = 200, timeout_s: float = 30.0) -> float:
        """Connects and logs in `count` subscribers, at most `window` of them at a time. Returns the seconds it took.

        Raises:
            BenchmarkError: one was refused, or nobody got further for `timeout_s`.
        """
        raise_open_files(count + 200)
        started = moved = time.monotonic()
        waiting = deque(range(count))
        sampled = set(range(0, count, max(1, count // max(1, min(self._sample, count)))))
        done = 0
        while done < count:
            while waiting and len(self._logging_in) < window:
                number = waiting.popleft()
                self._logging_in.add(_Login(self, number, number in sampled))
            self.poll(1.0)
            if self.lost:
                raise BenchmarkError(f"a subscriber was lost while connecting: {self.lost[0]}")
            now = time.monotonic()
            if len(self.counters) > done:
                done, moved = len(self.counters), now
            elif now - moved > timeout_s:
                raise BenchmarkError(f"{done} of {count} subscribers connected, then none for {timeout_s:g} s")
        return time.monotonic() - started

    def poll(self, timeout_s: float) -> None:
        """Reads from every socket that has something."""
        for key, _ in self.selector.select(timeout_s):
            reader: _Reader = key.data
            reader.read()

    def close(self) -> None:
        """Closes all connections."""
        for sock in self._sockets:
            sock.close()
        self.selector.close()

    def open(self, number: int) -> tuple[socket.socket, TcpWire | WsWire]:
        """A socket that is connecting, and what it will speak."""
        address = self._addresses[number % len(self._addresses)]
        host, port = split_address(address)
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setblocking(False)
        source = number // _PER_SOURCE_ADDRESS
        if source and host.startswith("127."):
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((f"127.0.0.{source + 1}", 0))
        problem = sock.connect_ex((host, port))
        if problem not in (0, errno.EINPROGRESS):
            raise BenchmarkError(f"cannot connect to {address}: {errno.errorcode.get(problem, problem)}")
        self._sockets.append(sock)
        return sock, WsWire(address) if self._transport == "ws" else TcpWire()

    def keep(self, sock: socket.socket) -> None:
        """Closes this one, too, at the end."""
        self._sockets.append(sock)

    def logged_in(self, login: _Login, data: bytes, packets: list[Packet]) -> None:
        """Hands a subscriber's socket to what counts, with what came behind the reply to its login."""
        self._logging_in.discard(login)
        counter: _Counter | _Sampler
        if login.is_sampled:
            counter = _Sampler(self, login.socket, login.dialect)
            self.samples.append(counter.sample)
            counter.take(packets)
        else:
            counter = _Counter(self, login.socket, data)
        self.counters.append(counter)
        self.selector.modify(login.socket, selectors.EVENT_READ, counter)

    def lose(self, sock: socket.socket, reason: str) -> None:
        """Forgets a subscriber."""
        self.selector.unregister(sock)
        self.lost.append(reason)

    def receive(self, sock: socket.socket, tail: bytes) -> tuple[int, int]:
        """Reads into the common buffer, behind `tail`. Returns from where to where it is filled; the same if empty."""
        try:
            size = sock.recv_into(self._view)
        except (BlockingIOError, ssl.SSLWantReadError):
            return _TAIL, _TAIL
        except OSError as error:
            self.lose(sock, error.strerror or "error")
            return _TAIL, _TAIL
        if not size:
            self.lose(sock, "closed by the server")
            return _TAIL, _TAIL
        start = _TAIL - len(tail)
        self._buffer[start:_TAIL] = tail
        return start, _TAIL + size

    @property
    def buffer(self) -> bytearray:
        """Where receive() puts what it reads."""
        return self._buffer


class _Login:
    """A subscriber until the reply to its login."""

    def __init__(self, crowd: Crowd, number: int, is_sampled: bool) -> None:
        self._crowd = crowd
        self.is_sampled = is_sampled
        self.socket, self.dialect = crowd.open(number)
        self._auth = self.dialect.send(Packet(Op.AUTH, 1, 1, crowd.token(number)))
        self._has_asked = self._has_opened = False
        self._is_connected = self._is_encrypted = False
        crowd.selector.register(self.socket, selectors.EVENT_WRITE, self)

    def read(self) -> None:
        try:
            if not self._is_connected:
                self._is_connected = True
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._crowd.selector.modify(self.socket, selectors.EVENT_READ, self)
                if self._crowd.tls is not None:
                    self._crowd.selector.unregister(self.socket)
                    self.socket = wrap(self.socket, self._crowd.tls)
                    self._crowd.selector.register(self.socket, selectors.EVENT_READ, self)
                    self._crowd.keep(self.socket)
            if isinstance(self.socket, ssl.SSLSocket) and not self._is_encrypted:
                self.socket.do_handshake()
                self._is_encrypted = True
            if not self._has_opened:
                self._has_opened = True
                if self.dialect.opening:
                    self.socket.sendall(self.dialect.opening)
            else:
                data = self.socket.recv(4096)
                packets = self.dialect.receive(data)
                if not data or self.dialect.broken:
                    self._crowd.lose(self.socket, str(self.dialect.broken or "closed during the login"))
                elif packets and packets[0].op == Op.AUTH_REPLY:
                    self._crowd.logged_in(self, data, packets[1:])
            if self.dialect.is_open and not self._has_asked:
                self._has_asked = True
                self.socket.sendall(self._auth)
        except ssl.SSLWantReadError:
            pass
        except OSError as error:
            self._crowd.lose(self.socket, error.strerror or "error")


class _Counter:
    """A subscriber that counts its messages."""

    __slots__ = ("_crowd", "_socket", "_tail", "received")

    def __init__(self, crowd: Crowd, sock: socket.socket, data: bytes) -> None:
        self._crowd = crowd
        self._socket = sock
        self._tail = data[-_TAIL:]
        self.received = data.count(MARK)
        crowd.received += self.received

    def read(self) -> None:
        self._read()
        while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self._read()

    def _read(self) -> None:
        crowd = self._crowd
        start, end = crowd.receive(self._socket, self._tail)
        if start == end:
            return
        count = crowd.buffer.count(MARK, start, end)
        self.received += count
        crowd.received += count
        # A mark may be cut in two only where the last byte is one of its own.
        is_cut = crowd.buffer[end - 1] in _MARK_BYTES
        self._tail = bytes(crowd.buffer[max(start, end - _TAIL) : end]) if is_cut else b""


class _Sampler:
    """A subscriber that reads its messages."""

    def __init__(self, crowd: Crowd, sock: socket.socket, dialect: TcpWire | WsWire) -> None:
        self._crowd = crowd
        self._socket = sock
        self._dialect = dialect
        self.sample = Sample()

    @property
    def received(self) -> int:
        return len(self.sample.numbers)

    def read(self) -> None:
        self._read()
        while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self._read()

    def _read(self) -> None:
        start, end = self._crowd.receive(self._socket, b"")
        if start == end:
            return
        self.take(self._dialect.receive(bytes(self._crowd.buffer[start:end])))
        if self._dialect.broken:
            self._crowd.lose(self._socket, str(self._dialect.broken))

    def take(self, packets: list[Packet]) -> None:
        now_us = time.monotonic_ns() // 1000
        for packet in packets:
            message = json.loads(packet.body)
            self.sample.numbers.append(message["n"])
            self.sample.connections.append(message["c"])
            self.sample.latencies_s.append((now_us - message["t"]) / 1e6)
            self._crowd.received += 1


def raise_open_files(count: int) -> None:
    """Raises the limit of open files as far as it may.

    Raises:
        BenchmarkError: that is less than `count`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 20)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < count:
        raise BenchmarkError(f"{hard} open files are allowed and {count} needed; see ulimit -n")

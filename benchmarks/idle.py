"""One push to one idle user at a time: from the HTTP request to the client's socket."""

from __future__ import annotations

import json
import socket
import ssl
import time

from benchmarks.certificate import wrap
from benchmarks.fabric import BenchmarkError
from zim.client.address import split_address
from zim.client.wire import TcpWire
from zim.client.ws import WsWire
from zim.protocol.frame import Op, Packet

UID = 2_000_000_000  # nobody's in the crowd
_TIMEOUT_S = 10.0


def push_latency(http: str, comet: str, transport: str, count: int, tls: ssl.SSLContext | None = None) -> list[float]:
    """Seconds from each request to its message, for `count` pushes to one user. tls: of the comet.

    Raises:
        BenchmarkError: the fabric did not answer, or not in time.
    """
    try:
        with (
            _connect(comet, tls) as client,
            socket.create_connection(split_address(http), timeout=_TIMEOUT_S) as backend,
        ):
            for sock in (client, backend):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            dialect = WsWire(comet) if transport == "ws" else TcpWire()
            _log_in(client, dialect)
            return [_one(client, backend, dialect, http, number) for number in range(count)]
    except TimeoutError:
        raise BenchmarkError(f"a push to an idle user did not arrive in {_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise BenchmarkError(f"a push to an idle user failed: {error.strerror or error}") from None


def _connect(comet: str, tls: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection(split_address(comet), timeout=_TIMEOUT_S)
    return sock if tls is None else wrap(sock, tls)


def _log_in(client: socket.socket, dialect: TcpWire | WsWire) -> None:
    client.sendall(dialect.opening)
    while not dialect.is_open:
        _receive(client, dialect)
    client.sendall(dialect.send(Packet(Op.AUTH, 1, 1, b"%d" % UID)))
    packets: list[Packet] = []
    while not packets:
        packets = _receive(client, dialect)
    if packets[0].op != Op.AUTH_REPLY:
        raise BenchmarkError(f"op {packets[0].op} where the login's reply should be")


def _one(client: socket.socket, backend: socket.socket, dialect: TcpWire | WsWire, http: str, number: int) -> float:
    body = b'{"number":%d}' % number
    head = f"POST /1/push?uid={UID} HTTP/1.1\r\nHost: {http}\r\nContent-Length: {len(body)}\r\n\r\n"
    started = time.perf_counter()
    backend.sendall(head.encode() + body)
    packets: list[Packet] = []
    while not packets:
        packets = _receive(client, dialect)
    took = time.perf_counter() - started
    if [(packet.op, json.loads(packet.body)) for packet in packets] != [(Op.PUSH, {"number": number})]:
        raise BenchmarkError(f"push {number} to an idle user arrived as something else")
    _read_answer(backend)
    return took


def _receive(client: socket.socket, dialect: TcpWire | WsWire) -> list[Packet]:
    data = client.recv(65536)
    packets = dialect.receive(data)
    if dialect.broken or not data:
        raise BenchmarkError(f"the comet hung up on an idle user: {dialect.broken or 'end of the stream'}")
    return packets


def _read_answer(backend: socket.socket) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.rstrip().endswith(b"}"):
        data = backend.recv(65536)
        if not data:
            raise BenchmarkError("the logic node hung up")
        answer += data
    if b" 200 " not in answer[:20] or b'"ret":1}' not in answer.replace(b" ", b""):
        raise BenchmarkError(f"a push to an idle user was answered {answer[-80:]!r}")

"""What stands before a connection's bytes: who comes through, in what order, and who does not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket

from tests.harness import wait_until
from tests.tls_proxy import Signer
from zim.net import handshakes as module
from zim.net.accept import PatientServer, listen
from zim.net.certificates import CertificateFiles, load_certificates
from zim.net.handshakes import Handshakes
from zim.net.proxy import proxies
from zim.net.tls import AnySocket

HEADER = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"


class Server(PatientServer):
    """Takes who comes through, and answers its first bytes in capitals."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        super().__init__(listen("tcp", ("127.0.0.1", 0)), self.do_handle)
        self.handshakes = Handshakes(timeout_s)
        self.clients: list[tuple[Any, ...]] = []
        self.given_up = 0
        self.start()

    def do_handle(self, *args: Any) -> None:
        self.handshakes.begin(args[0], args[1], self._go_on, self._give_up)

    def _go_on(self, sock: AnySocket, address: tuple[Any, ...]) -> None:
        self.clients.append(address)
        gevent.spawn(self._answer, sock)

    def _answer(self, sock: AnySocket) -> None:
        sock.sendall(sock.recv(100).upper())
        sock.close()

    def _give_up(self) -> None:
        self.given_up += 1

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server_port), timeout=10)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture
def tls(server: Server, signer: Signer, tmp_path: Path) -> ssl.SSLContext:
    """The client's, for a server that speaks TLS from now on."""
    server.handshakes.context = load_certificates([CertificateFiles(*signer.sign("a.example", tmp_path))]).context
    return ssl.create_default_context(cafile=signer.file)


def ends_with(sock: socket.socket, data: bytes) -> bool:
    """The other end says this, and closes."""
    came = b""
    try:
        while piece := sock.recv(100):
            came += piece
    except ConnectionError:
        pass
    return came == data


def test_without_anything_they_come_through_at_once(server: Server) -> None:
    with server.connect() as sock:
        wait_until(lambda: server.clients, "it is taken before it has said a word")
        sock.sendall(b"hello")
        assert ends_with(sock, b"HELLO")


def test_an_introduction_gives_the_address_and_nothing_behind_it_is_lost(server: Server) -> None:
    server.handshakes.introduces, server.handshakes.proxies = True, proxies(["127.0.0.1"], "X")
    for cut in (0, 1, 5, 20, len(HEADER) - 1, len(HEADER)):
        with server.connect() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(HEADER[:cut])
            gevent.sleep(0.02)
            sock.sendall(HEADER[cut:] + b"hello")
            assert ends_with(sock, b"HELLO")
    assert server.clients == [("203.0.113.7", 4711)] * 6
    with server.connect() as sock:
        sock.sendall(b"PROXY UNKNOWN\r\nhello")
        assert ends_with(sock, b"HELLO")
        assert server.clients[-1] == sock.getsockname()


def test_who_is_no_proxy_or_says_something_else_is_closed(server: Server) -> None:
    server.handshakes.introduces, server.handshakes.proxies = True, proxies(["127.0.0.1"], "X")
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        assert ends_with(sock, b"")
    server.handshakes.proxies = proxies(["10.0.0.0/8"], "X")
    with server.connect() as sock:
        sock.sendall(HEADER)
        assert ends_with(sock, b"")
    assert server.clients == []
    assert server.given_up == server.handshakes.failed["proxy"] == 2


def test_tls_behind_an_introduction(server: Server, tls: ssl.SSLContext) -> None:
    server.handshakes.introduces, server.handshakes.proxies = True, proxies(["127.0.0.1"], "X")
    plain = server.connect()
    plain.sendall(HEADER)
    with tls.wrap_socket(plain, server_hostname="a.example") as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"HELLO"
        assert sock.recv(100) == b""
    assert server.clients == [("203.0.113.7", 4711)]


def test_plain_http_is_told_what_is_right(server: Server, tls: ssl.SSLContext) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        answer = sock.recv(1000)
        assert answer.startswith(b"HTTP/1.1 400 ")
        head, body = answer.split(b"\r\n\r\n")
        assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
        assert b"https://" in body
    wait_until(lambda: server.given_up == 1, "it is given up")


def test_silence_and_half_a_hello_have_a_time_limit(signer: Signer, tmp_path: Path) -> None:
    server = Server(timeout_s=0.3)
    server.handshakes.context = load_certificates([CertificateFiles(*signer.sign("a.example", tmp_path))]).context
    silent, half = server.connect(), server.connect()
    half.sendall(b"\x16\x03\x01\x01\x00\x01")
    with silent, half:
        assert ends_with(silent, b"")
        assert ends_with(half, b"")
    assert server.given_up == server.handshakes.failed["late"] == 2
    server.close()


def test_garbage_gets_an_alert_and_others_come_through_meanwhile(server: Server, tls: ssl.SSLContext) -> None:
    with server.connect() as broken:
        broken.sendall(b"\x16\x03\x01\x00\x05hello")
        with tls.wrap_socket(server.connect(), server_hostname="a.example") as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"HELLO"
        assert broken.recv(100)[:1] == b"\x15"
    wait_until(lambda: server.handshakes.failed["tls"] == 1, "it is counted")


def test_when_there_are_too_many_the_oldest_goes(
    server: Server, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNDER_WAY", 5)
    stalled = [server.connect() for _ in range(12)]
    wait_until(lambda: server.given_up == 7, "the oldest go")
    assert all(ends_with(sock, b"") for sock in stalled[:7])
    with tls.wrap_socket(server.connect(), server_hostname="a.example") as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"HELLO"
    assert server.handshakes.failed["crowded"] == 8
    for one in stalled:
        one.close()


def test_who_is_under_way_goes_with_its_listener(server: Server, tls: ssl.SSLContext) -> None:
    with server.connect() as sock:
        wait_until(lambda: server.handshakes._under_way, "it is under way")
        server.handshakes.close()
        assert ends_with(sock, b"")
    assert server.given_up == 1


def test_a_new_certificate_is_for_the_next_connection(
    server: Server, tls: ssl.SSLContext, signer: Signer, tmp_path: Path
) -> None:
    with tls.wrap_socket(server.connect(), server_hostname="a.example") as before:
        server.handshakes.context = load_certificates([CertificateFiles(*signer.sign("b.example", tmp_path))]).context
        with tls.wrap_socket(server.connect(), server_hostname="b.example") as after:
            for client in (before, after):
                client.sendall(b"hello")
                assert client.recv(100) == b"HELLO"

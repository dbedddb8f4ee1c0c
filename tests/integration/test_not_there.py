"""What docs/limits.md says is not there: whoever builds one of these changes the page."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent import socket

from tests.harness import Client, Fabric, running
from tests.tls_proxy import Signer
from zim.net.certificates import CertificateFiles, load_certificates
from zim.protocol.frame import Op

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
UPGRADE = (
    b"GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
JSON = b"POST /api/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running() as found:
        yield found


def ask(address: str, sent: bytes) -> str:
    """The first bytes of the answer."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as s:
        s.sendall(sent)
        return s.recv(4096).decode()


def says(text: str) -> bool:
    return text in " ".join(PAGE.read_text().split())


def test_certificates_of_clients(tmp_path: Path) -> None:
    assert says("**Certificates of clients, and ACME.** zim asks for none")
    shown = load_certificates([CertificateFiles(*Signer(tmp_path).sign("a.example", tmp_path))])
    assert shown.context.verify_mode == ssl.CERT_NONE


def test_compression(fabric: Fabric) -> None:
    assert says("WebSocket is without `permessage-deflate`")
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    answer = ask(fabric.ws["comet-1"], UPGRADE + offer)
    assert answer.startswith("HTTP/1.1 101 ")
    assert "extensions" not in answer.lower()
    assert says("is 415 in zim's API")
    body = b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
    assert ask(fabric.http["logic-1"], JSON + body).startswith("HTTP/1.1 415 ")
    plain = ask(
        fabric.http["logic-1"], b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, br\r\n\r\n"
    )
    assert plain.endswith('{"status":"ok"}')


def test_subprotocols(fabric: Fabric) -> None:
    assert says("What a client offers in `Sec-WebSocket-Protocol` is not looked at, and not answered")
    answer = ask(fabric.ws["comet-1"], UPGRADE + b"Sec-WebSocket-Protocol: chat, zim\r\n\r\n")
    assert answer.startswith("HTTP/1.1 101 ")
    assert "protocol" not in answer.lower().replace("switching protocols", "")


def test_http_2(fabric: Fabric) -> None:
    assert says("**HTTP/2 and HTTP/3, WebSocket over them.**")
    for address in (fabric.http["logic-1"], fabric.ws["comet-1"]):
        assert ask(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith("HTTP/1.1 400 ")


def test_binary_frames(fabric: Fabric) -> None:
    assert says("A client that sends one is closed with 1003")
    with socket.create_connection(("127.0.0.1", int(fabric.ws["comet-1"].rpartition(":")[2])), timeout=20) as s:
        s.sendall(UPGRADE + b"\r\n\x82\x80\0\0\0\0")
        found = b""
        while more := s.recv(4096):
            found += more
    assert (1003).to_bytes(2, "big") in found.partition(b"\r\n\r\n")[2]


def test_messages_between_clients(fabric: Fabric) -> None:
    assert says("What a client sends with op 4 is echoed")
    client = Client(fabric.tcp["comet-1"], "7")
    client.say(Op.UPSTREAM, b"hello", seq=5)
    (echo,) = client.wait(1)
    assert (echo.op, echo.seq, echo.body) == (Op.PUSH, 5, b"hello")

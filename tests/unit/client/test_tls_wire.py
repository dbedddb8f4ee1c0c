"""The wire inside of TLS, without a socket: any chunks, any garbage."""

from __future__ import annotations

import contextlib
import json
import ssl

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from zim.client.errors import CertificateError, ConnectionLost, Unreachable
from zim.client.tls import TlsWire
from zim.client.ws import WsWire, accept_key
from zim.protocol import websocket
from zim.protocol.frame import Packet
from zim.protocol.websocket import encode_frame

CA = trustme.CA()
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CA.issue_cert("push.example.com").configure_cert(SERVER)
CLIENT = ssl.create_default_context()
CA.configure_trust(CLIENT)


class Server:
    """The other end, in memory."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = SERVER.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.heard = b""
        self.is_encrypted = False

    def receive(self, data: bytes) -> bytes:
        """Takes what the client says, and says what TLS itself has to say."""
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self.is_encrypted:
                self.tls.do_handshake()
                self.is_encrypted = True
            while piece := self.tls.read(65_536):
                self.heard += piece
        return self.outgoing.read()

    def say(self, data: bytes) -> bytes:
        while data:
            data = data[self.tls.write(data) :]
        return self.outgoing.read()


def opened(host: str = "push.example.com") -> tuple[TlsWire, Server]:
    """A wire whose WebSocket is open."""
    wire, server = TlsWire(WsWire(host), CLIENT, f"wss://{host}", host), Server()
    said = wire.opening
    while not server.heard:
        assert wire.receive(server.receive(said)) == []
        assert wire.broken is None, wire.broken
        said = wire.replies()
        assert said or server.heard
    assert not wire.is_open
    key = server.heard.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    head = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
    assert wire.receive(server.say(head % accept_key(key))) == []
    assert wire.is_open
    server.heard = b""
    return wire, server


def pushed(body: int) -> bytes:
    text = json.dumps([{"ver": 3, "op": 5, "seq": 0, "body": body, "stream": "u:7", "offset": body}])
    return encode_frame(websocket.TEXT, text.encode())


@given(st.lists(st.integers(1, 1000), max_size=5), st.lists(st.integers(1, 300), min_size=1, max_size=5))
def test_packets_survive_any_chunking(bodies: list[int], sizes: list[int]) -> None:
    wire, server = opened()
    data = server.say(b"".join(map(pushed, bodies)))
    found: list[Packet] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += wire.receive(data[at : at + size])
        at, turn = at + size, turn + 1
    assert [packet.offset for packet in found] == bodies
    assert wire.broken is None


@given(st.binary(min_size=1), st.booleans())
def test_any_bytes_end_it_at_most_with_an_error_of_ours(garbage: bytes, is_open: bool) -> None:
    wire, server = (
        opened() if is_open else (TlsWire(WsWire("push.example.com"), CLIENT, "wss://x", "push.example.com"), Server())
    )
    wire.receive((server.say(pushed(1)) if is_open else b"") + garbage)
    assert wire.broken is None or isinstance(wire.broken, ConnectionLost)
    wire.replies()
    wire.closing()
    if wire.broken is not None and not is_open:
        assert isinstance(wire.broken, Unreachable)


def test_after_garbage_what_came_before_is_kept_and_nothing_can_be_said() -> None:
    wire, server = opened()
    (packet,) = wire.receive(server.say(pushed(1)) + b"\x17\x03\x03\x00\x20" + b"x" * 32)
    assert packet.offset == 1
    assert str(wire.broken).startswith("connection lost: ")
    with pytest.raises(ConnectionLost, match="connection lost"):
        wire.send(packet)
    wire.closing()


def test_a_large_packet_is_encrypted_whole() -> None:
    wire, server = opened()
    body = b'"%s"' % (b"x" * 200_000)
    server.receive(wire.send(Packet(4, 1, 3, body)))
    assert len(server.heard) > len(body)


def test_both_ends_say_goodbye() -> None:
    wire, server = opened()
    assert server.receive(wire.closing()) == b""
    assert server.heard[0] == 0x80 | websocket.CLOSE
    wire, server = opened()
    with contextlib.suppress(ssl.SSLWantReadError):
        server.tls.unwrap()
    wire.receive(server.outgoing.read())
    assert str(wire.broken) == "closed by the server"


def test_a_certificate_for_another_name() -> None:
    wire, server = TlsWire(WsWire("x.example"), CLIENT, "wss://x.example", "x.example"), Server()
    wire.receive(server.receive(wire.opening))
    assert isinstance(wire.broken, CertificateError)
    assert "Hostname mismatch" in str(wire.broken)
    with pytest.raises(ssl.SSLError):  # the server is told
        server.receive(wire.replies())

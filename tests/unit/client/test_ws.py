"""The WebSocket client side, without sockets."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.client.errors import ConnectionLost, LoginRefused
from zim.client.ws import WsWire, accept_key, check_response
from zim.errors import ZimError
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet
from zim.protocol.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, apply_mask, encode_frame

PUSH = b'[{"ver":0,"op":5,"seq":0,"body":{"a":1}}]'


def opened() -> WsWire:
    """A dialect behind its handshake."""
    dialect = WsWire("127.0.0.1:8090")
    key = dialect.opening.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    assert dialect.receive(head + accept_key(key) + b"\r\n\r\n") == []
    assert dialect.is_open
    return dialect


def test_the_key_of_the_rfc() -> None:
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(st.lists(st.binary(max_size=80) | st.binary(max_size=80).map(lambda body: encode_frame(TEXT, body)), max_size=6))
def test_any_bytes_break_a_websocket_at_most_with_an_error_of_ours(stream: list[bytes]) -> None:
    for dialect in (WsWire("127.0.0.1:1"), opened()):
        for chunk in stream:
            dialect.receive(chunk)
        assert dialect.broken is None or isinstance(dialect.broken, ZimError)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (encode_frame(TEXT, b"x", b"mask"), "masked"),
        (b"\xc1\x00", "reserved"),
        (b"\x83\x00", "opcode"),
        (b"\x89\x7e", "control"),
        (encode_frame(CONTINUATION, b"x"), "out of order"),
        (b"\x81\x7f" + struct.pack(">Q", 1 << 62), "more than"),
        (encode_frame(TEXT, b"\xff"), "UTF-8"),
        (encode_frame(TEXT, b"nonsense"), "packets"),
        (encode_frame(BINARY, b"x"), "binary"),
    ],
)
def test_garbage_has_a_reason_and_what_came_before_is_kept(bad: bytes, reason: str) -> None:
    dialect = opened()
    assert dialect.receive(encode_frame(TEXT, PUSH) + bad) == [Packet(5, 0, 0, b'{"a":1}')]
    assert isinstance(dialect.broken, WireError)
    assert reason in str(dialect.broken)


def test_a_ping_is_answered_once_and_a_close_tells_its_reason() -> None:
    dialect = opened()
    assert dialect.receive(encode_frame(PING, b"are you there")) == []
    reply = dialect.replies()
    assert reply[0] == 0x80 | PONG
    assert apply_mask(reply[6:], reply[2:6]) == b"are you there"
    assert dialect.replies() == b""
    dialect.receive(encode_frame(CLOSE, struct.pack(">H", 1013) + b"try again"))
    assert isinstance(dialect.broken, ConnectionLost)
    assert "1013: try again" in str(dialect.broken)


@pytest.mark.parametrize(
    ("head", "error", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nA: b", LoginRefused, "404 Not Found"),
        (b"HTTP/1.1 503", LoginRefused, "503"),
        (b"SSH-2.0-OpenSSH", WireError, "not HTTP"),
        (b"", WireError, "not HTTP"),
        (b"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: x", WireError, "Upgrade"),
        (b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x", WireError, "Accept"),
    ],
)
def test_answers_that_are_no_websocket(head: bytes, error: type[ZimError], text: str) -> None:
    with pytest.raises(error, match=text):
        check_response(head, b"dGhlIHNhbXBsZSBub25jZQ==")


def test_the_reason_of_a_refusal_is_told_as_far_as_it_is_text() -> None:
    wire = WsWire("127.0.0.1:1")
    wire.receive(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nnot \x1b[31mwelcome\nmore")
    assert str(wire.broken) == "HTTP 403 Forbidden for /sub instead of a WebSocket: not [31mwelcome"
    wire = WsWire("127.0.0.1:1")
    wire.receive(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<html>")
    assert str(wire.broken) == "HTTP 403 Forbidden for /sub instead of a WebSocket"


def test_a_logic_is_known_by_its_404() -> None:
    wire = WsWire("127.0.0.1:1")
    wire.receive(b"HTTP/1.1 404 NOT FOUND\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n404 page not found\n")
    why = "a logic answers there; clients connect to a comet's `ws`"
    assert str(wire.broken) == f"HTTP 404 NOT FOUND for /sub instead of a WebSocket: {why}"


@pytest.mark.parametrize("said", [b"\xff", b"SSH", b"HTTP/2"])
def test_what_is_not_http_is_known_by_its_first_bytes(said: bytes) -> None:
    wire = WsWire("127.0.0.1:1")
    wire.receive(said)
    assert "is not HTTP; is this a WebSocket port?" in str(wire.broken)


def test_silence_means_something_until_it_is_broken() -> None:
    wire = WsWire("127.0.0.1:1")
    assert wire.of_silence == " (if that is a comet's `tcp`, WebSocket is on its `ws`)"
    wire.receive(b"HTTP")
    assert (wire.of_silence, wire.broken) == ("", None)


def test_an_answer_without_end_is_bounded() -> None:
    dialect = WsWire("127.0.0.1:1")
    for _ in range(20):
        dialect.receive(b"HTTP/1.1 200 " + b"x" * 1000)
    assert isinstance(dialect.broken, WireError)

"""The WebSocket client side, without sockets."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.test_wire import CUTS, chunks
from zim.client.errors import ConnectionLost, LoginRefused
from zim.client.ws import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    Frames,
    WsDialect,
    accept_key,
    apply_mask,
    check_response,
    encode_frame,
)
from zim.errors import ZimError
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet

PUSH = b'[{"ver":0,"op":5,"seq":0,"body":{"a":1}}]'


def server_frame(opcode: int, body: bytes, is_final: bool = True) -> bytes:
    """A frame as a server sends it: not masked."""
    size = len(body)
    first = opcode | 0x80 * is_final
    if size < 126:
        return struct.pack(">BB", first, size) + body
    if size < 1 << 16:
        return struct.pack(">BBH", first, 126, size) + body
    return struct.pack(">BBQ", first, 127, size) + body


def opened() -> WsDialect:
    """A dialect behind its handshake."""
    dialect = WsDialect("127.0.0.1:8090")
    key = dialect.opening.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    assert dialect.receive(head + accept_key(key) + b"\r\n\r\n") == []
    assert dialect.is_open
    return dialect


def test_the_key_of_the_rfc() -> None:
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_masked_frame_of_the_rfc() -> None:
    assert encode_frame(TEXT, b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("818537fa213d7f9f4d5158")


@given(st.binary(max_size=2000), st.binary(min_size=4, max_size=4))
def test_masking_twice_is_nothing(body: bytes, mask: bytes) -> None:
    masked = apply_mask(body, mask)
    assert masked == bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))
    assert apply_mask(masked, mask) == body


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_sizes_of_frames(size: int) -> None:
    frame = encode_frame(BINARY, bytes(size))
    marker = frame[1] & 127
    assert (size if marker < 126 else int.from_bytes(frame[2 : 4 if marker == 126 else 10], "big")) == size
    assert list(Frames().receive(server_frame(BINARY, bytes(size)))) == [Frame(BINARY, bytes(size))]


@given(
    st.lists(st.tuples(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.binary(max_size=125)), max_size=4),
    CUTS,
)
def test_messages_survive_fragments_pings_between_them_and_any_chunking(
    messages: list[tuple[list[bytes], bytes]], cuts: list[int]
) -> None:
    stream, expected = b"", []
    for parts, ping in messages:
        for at, part in enumerate(parts):
            stream += server_frame(TEXT if at == 0 else CONTINUATION, part, at == len(parts) - 1)
            if at < len(parts) - 1:
                stream += server_frame(PING, ping)
                expected.append(Frame(PING, ping))
        expected.append(Frame(TEXT, b"".join(parts)))
    frames = Frames()
    assert [found for chunk in chunks(stream, cuts) for found in frames.receive(chunk)] == expected


@given(st.lists(st.binary(max_size=80) | st.binary(max_size=80).map(lambda body: server_frame(TEXT, body)), max_size=6))
def test_any_bytes_break_a_websocket_at_most_with_an_error_of_ours(stream: list[bytes]) -> None:
    for dialect in (WsDialect("127.0.0.1:1"), opened()):
        for chunk in stream:
            dialect.receive(chunk)
        assert dialect.broken is None or isinstance(dialect.broken, ZimError)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (encode_frame(TEXT, b"x", b"mask"), "masked"),
        (b"\xc1\x00", "reserved"),
        (b"\x83\x00", "opcode"),
        (server_frame(PING, b"", is_final=False), "control"),
        (b"\x89\x7e", "control"),
        (server_frame(CONTINUATION, b"x"), "out of order"),
        (server_frame(TEXT, b"x", is_final=False) + server_frame(TEXT, b"x"), "out of order"),
        (b"\x81\x7f" + struct.pack(">Q", 1 << 62), "more than"),
        (server_frame(TEXT, b"\xff"), "UTF-8"),
        (server_frame(TEXT, b"nonsense"), "packets"),
        (server_frame(BINARY, b"x"), "binary"),
    ],
)
def test_garbage_has_a_reason_and_what_came_before_is_kept(bad: bytes, reason: str) -> None:
    dialect = opened()
    assert dialect.receive(server_frame(TEXT, PUSH) + bad) == [Packet(5, 0, 0, b'{"a":1}')]
    assert isinstance(dialect.broken, WireError)
    assert reason in str(dialect.broken)


def test_fragments_together_are_bounded() -> None:
    frames = Frames(max_bytes=10)
    assert list(frames.receive(server_frame(TEXT, bytes(6), is_final=False))) == []
    with pytest.raises(WireError, match="more than 10"):
        list(frames.receive(server_frame(CONTINUATION, bytes(6))))


def test_a_ping_is_answered_once_and_a_close_tells_its_reason() -> None:
    dialect = opened()
    assert dialect.receive(server_frame(PING, b"are you there")) == []
    reply = dialect.replies()
    assert reply[0] == 0x80 | PONG
    assert apply_mask(reply[6:], reply[2:6]) == b"are you there"
    assert dialect.replies() == b""
    dialect.receive(server_frame(CLOSE, struct.pack(">H", 1013) + b"try again"))
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


def test_an_answer_without_end_is_bounded() -> None:
    dialect = WsDialect("127.0.0.1:1")
    for _ in range(20):
        dialect.receive(b"x" * 1000)
    assert isinstance(dialect.broken, WireError)

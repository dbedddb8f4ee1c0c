import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.protocol import websocket
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet
from zim.protocol.framings.base import Alive, Goodbye
from zim.protocol.framings.text import TEXT, encode_json, parse_text
from zim.protocol.websocket import BINARY, CLOSE, PING, PONG, encode_close, encode_frame

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200))
def test_any_body_is_json_for_a_json_client(body: bytes) -> None:
    text = encode_json(body).decode()
    value = json.loads(text)
    try:
        assert value == json.loads(body)
    except ValueError:
        assert value == ({} if not body else body.decode(errors="replace"))


@given(JSON)
def test_json_goes_through_as_it_was_written(value: object) -> None:
    for body in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=1).encode()):
        assert encode_json(body) == body


@given(st.binary(max_size=100) | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_text_is_a_packet_or_a_wire_error(text: bytes) -> None:
    try:
        packet = parse_text(text)
    except WireError:
        return
    assert -(1 << 31) <= packet.op < 1 << 31


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ('{"ver":1,"op":7,"seq":2,"body":71002}', Packet(7, 2, 1, b"71002")),
        ('{"VER":1,"Op":7,"SEQ":2,"Body":"x"}', Packet(7, 2, 1, b'"x"')),
        ('{"op":2,"body":null}', Packet(2, 0, 0, b"null")),
        ('{"op":null}', Packet(0, 0, 0, b"")),
        ("null", Packet(0, 0, 0, b"")),
        (' {"op":2} {"op":3}', Packet(2, 0, 0, b"")),
        ('{"op":4,"body":{"a": [1 ,2]}}', Packet(4, 0, 0, b'{"a": [1 ,2]}')),
        ('{"op":4,"op":5}', Packet(5, 0, 0, b"")),
        ('{"op":4,"body":"\\ud800"}', Packet(4, 0, 0, b'"\\ud800"')),
    ],
)
def test_text_is_read_as_go_reads_it(text: str, packet: Packet) -> None:
    assert parse_text(text.encode()) == packet


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '{"op":"2"}', '{"op":2.0}', '{"op":1e3}', '{"seq":2147483648}', '{"ver":32768}', "{"]
)
def test_text_that_goim_refuses(text: str) -> None:
    with pytest.raises(WireError):
        parse_text(text.encode())


@pytest.mark.parametrize("text", [b'[{"op":2}]', b" []", b"[" * 5000])
def test_of_an_array_it_says_what_would_be_right(text: bytes) -> None:
    with pytest.raises(WireError, match="an array; right is one object a frame"):
        parse_text(text)


MASK = b"mask"


def test_what_a_client_says_in_frames_that_are_no_packets() -> None:
    reader = TEXT.reader(100)
    data = encode_frame(PING, b"hi", MASK) + encode_frame(PONG, b"", MASK)
    data += encode_frame(websocket.TEXT, b'{"op":2}', MASK) + encode_close(1001, "bye", MASK)
    assert list(reader.receive(data)) == [Alive(encode_frame(PONG, b"hi")), Alive(), Packet(2), Goodbye(1001)]
    assert list(TEXT.reader(100).receive(encode_frame(CLOSE, b"", MASK))) == [Goodbye(1000)]
    with pytest.raises(WireError) as caught:
        list(TEXT.reader(100).receive(encode_frame(BINARY, b"", MASK)))
    assert caught.value.code == 1003


def test_only_a_close_with_a_code_has_a_frame() -> None:
    assert TEXT.encode_close(0, "why") == b""
    assert TEXT.encode_close(1008, "why") == encode_close(1008, "why")


@pytest.mark.parametrize("body", [b"1e400", b'"\\ud83d"', b"1.0e0", b'{"a":"\\udc00"}'])
def test_a_body_is_as_it_was_written_whatever_follows(body: bytes) -> None:
    for more in (b"", b" x"):
        assert parse_text(b'{"op":4,"body":%s}' % body + more) == Packet(op=4, body=body)

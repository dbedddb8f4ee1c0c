"""goim's packets: round trips in any chunking, and nothing but WireError whatever comes."""

import json
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.peers import packet
from zim.client.wire import TcpWire, decode_text, encode_text
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet, encode

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
FIELDS = (INT32, INT32, st.integers(-(1 << 15), (1 << 15) - 1), st.binary(max_size=300))
PLACES = st.tuples(st.text(min_size=1, max_size=60), st.integers(0, (1 << 63) - 1))
PACKETS = st.tuples(*FIELDS).map(lambda fields: Packet(*fields)) | st.tuples(*FIELDS, PLACES).map(
    lambda fields: Packet(*fields[:2], 3, fields[3], *fields[4])
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places, wherever they are."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 1 << 20), max_size=20)


@given(st.lists(PACKETS, max_size=5), CUTS)
def test_packets_survive_any_chunking(packets: list[Packet], cuts: list[int]) -> None:
    dialect = TcpWire()
    stream = b"".join(map(dialect.send, packets))
    assert [found for chunk in chunks(stream, cuts) for found in dialect.receive(chunk)] == packets
    assert dialect.broken is None


@given(st.lists(st.binary(max_size=60) | st.builds(encode, PACKETS), max_size=8))
def test_any_bytes_break_a_tcp_stream_at_most_with_a_wire_error(stream: list[bytes]) -> None:
    dialect = TcpWire(max_packet_bytes=200)
    for chunk in stream:
        dialect.receive(chunk)
    assert dialect.broken is None or isinstance(dialect.broken, WireError)


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack(">ihhii", 15, 16, 0, 5, 0),
        struct.pack(">ihhii", -1, 16, 0, 5, 0),
        struct.pack(">ihhii", 1 << 20, 16, 0, 5, 0),
        struct.pack(">ihhii", 20, 15, 0, 5, 0),
        struct.pack(">ihhii", 20, 21, 0, 5, 0),
    ],
)
def test_what_came_before_the_garbage_is_kept(bad: bytes) -> None:
    dialect = TcpWire(max_packet_bytes=1000)
    assert dialect.receive(packet(5, b"good") + bad) == [Packet(5, 0, 0, b"good")]
    assert isinstance(dialect.broken, WireError)
    assert dialect.receive(packet(5, b"late")) == []


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP speaks there, not TCP packets; a comet's WebSocket is at ws://"),
        (b"\xff" + bytes(8) + b"\x7f", "ZeroMQ speaks there, not TCP packets; a comet's TCP is on its `tcp`"),
    ],
)
def test_what_another_port_says_first_is_known(said: bytes, text: str) -> None:
    wire = TcpWire()
    wire.receive(said)
    assert text in str(wire.broken)


def test_a_longer_header_is_for_version_3() -> None:
    header = struct.pack(">ihhii", 29, 27, 3, 5, 9) + struct.pack(">Q", 12) + b"r:1"
    assert TcpWire().receive(header + b"hi") == [Packet(5, 9, 3, b"hi", "r:1", 12)]
    dialect = TcpWire()
    assert dialect.receive(struct.pack(">ihhii", 29, 27, 1, 5, 9) + bytes(13)) == []
    assert isinstance(dialect.broken, WireError)


@given(st.lists(st.tuples(JSON, st.sampled_from([None, 1, 4])), max_size=4))
def test_text_frames_round_trip(bodies: list[tuple[object, int | None]]) -> None:
    packets = [
        Packet(5, number, 1, json.dumps(body, indent=indent).encode()) for number, (body, indent) in enumerate(bodies)
    ]
    text = "[" + ",".join(encode_text(one).decode() for one in packets) + "]"
    assert decode_text(text) == packets


@given(
    st.text() | JSON.map(json.dumps) | st.lists(st.dictionaries(st.sampled_from(["op", "body"]), JSON)).map(json.dumps)
)
def test_any_text_is_packets_or_a_wire_error(text: str) -> None:
    try:
        packets = decode_text(text)
    except WireError:
        return
    assert all(isinstance(found, Packet) for found in packets)


@pytest.mark.parametrize(
    "body",
    [b"1.0e0", b'{"a" : [1,\n2]}', b'"\\u00e9"', '"é"'.encode(), b"null", b"12345678901234567890123", b"1" * 5000],
)
def test_a_body_in_a_text_frame_stays_as_it_was_written(body: bytes) -> None:
    assert decode_text(f'[ {{"ver":1, "op" : 5,"seq":0,"body": {body.decode()} }} ]\n') == [Packet(5, 0, 1, body)]


@pytest.mark.parametrize("body", [b"hello", b"\xff\xfe", b'{"a":'])
def test_a_body_that_is_not_json_goes_as_a_json_string(body: bytes) -> None:
    assert json.loads(encode_text(Packet(7, body=body)))["body"] == body.decode(errors="replace")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]]",
        "{}",
        '{"op":true}',
        '{"op":5.0}',
        '{"op":4294967296}',
        "[" * 100_000,
        '[{"op":5,"stream":7}]',
        '[{"op":5,"stream":""}]',
        '[{"op":5,"stream":"' + "x" * 256 + '"}]',
        '[{"op":5,"stream":"a","offset":-1}]',
        '[{"op":5,"stream":"a","offset":9223372036854775808}]',
        '{"op":5,"seq":99999999999999999999}',
    ],
)
def test_text_that_is_no_packets(text: str) -> None:
    with pytest.raises(WireError):
        decode_text(text)


def test_an_empty_array_is_no_packets() -> None:
    assert decode_text(" [ ] ") == []


def test_a_text_packet_may_have_a_place() -> None:
    text = '[{"ver":3,"op":5,"seq":0,"body":{},"stream":"r:é","offset":13}]'
    assert decode_text(text) == [Packet(5, 0, 3, b"{}", "r:é", 13)]


@pytest.mark.parametrize("inner", ["", '"]}\\"[",', '{"a":[]},'])
def test_a_body_that_is_nested_deeply_is_a_body(inner: str) -> None:
    body = "[" * 5000 + inner + "0" + "]" * 5000
    text = '[{"ver":3,"op":5,"seq":0,"body":' + body + ',"stream":"u:7","offset":2}]'
    assert decode_text(text) == [Packet(5, 0, 3, body.encode(), "u:7", 2)]


def test_http_where_tcp_packets_should_be_says_what_is_right() -> None:
    wire = TcpWire()
    wire.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "ws://host:port" in str(wire.broken)

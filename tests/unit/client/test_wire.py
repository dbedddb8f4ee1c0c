"""goim's packets: round trips in any chunking, and nothing but WireError whatever comes."""

import json
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.peers import packet
from zim.client.wire import Packet, TcpDialect, decode_text, encode, encode_text
from zim.protocol.errors import WireError

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
PACKETS = st.builds(Packet, INT32, st.binary(max_size=300), INT32, st.integers(-(1 << 15), (1 << 15) - 1))
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


def test_a_packet_is_goims() -> None:
    assert encode(Packet(7, b"123", 1, 1)) == bytes.fromhex("00000013 0010 0001 00000007 00000001") + b"123"


@given(st.lists(PACKETS, max_size=5), CUTS)
def test_packets_survive_any_chunking(packets: list[Packet], cuts: list[int]) -> None:
    dialect = TcpDialect()
    stream = b"".join(map(dialect.send, packets))
    assert [found for chunk in chunks(stream, cuts) for found in dialect.receive(chunk)] == packets
    assert dialect.broken is None


@given(st.lists(st.binary(max_size=60) | st.builds(encode, PACKETS), max_size=8))
def test_any_bytes_break_a_tcp_stream_at_most_with_a_wire_error(stream: list[bytes]) -> None:
    dialect = TcpDialect(max_packet_bytes=200)
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
    dialect = TcpDialect(max_packet_bytes=1000)
    assert dialect.receive(packet(5, b"good") + bad) == [Packet(5, b"good", 0, 0)]
    assert isinstance(dialect.broken, WireError)
    assert dialect.receive(packet(5, b"late")) == []


def test_a_longer_header_is_passed_over() -> None:
    """Version 3 puts offset and stream behind the 16 bytes."""
    assert TcpDialect().receive(struct.pack(">ihhii", 22, 20, 3, 5, 9) + b"xxxxhi") == [Packet(5, b"hi", 9, 3)]


@given(st.lists(st.tuples(JSON, st.sampled_from([None, 1, 4])), max_size=4))
def test_text_frames_round_trip(bodies: list[tuple[object, int | None]]) -> None:
    packets = [
        Packet(5, json.dumps(body, indent=indent).encode(), number) for number, (body, indent) in enumerate(bodies)
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
    "body", [b"1.0e0", b'{"a" : [1,\n2]}', b'"\\u00e9"', '"é"'.encode(), b"null", b"12345678901234567890123"]
)
def test_a_body_in_a_text_frame_stays_as_it_was_written(body: bytes) -> None:
    assert decode_text(f'[ {{"ver":1, "op" : 5,"seq":0,"body": {body.decode()} }} ]\n') == [Packet(5, body)]


@pytest.mark.parametrize("body", [b"hello", b"\xff\xfe", b'{"a":'])
def test_a_body_that_is_not_json_goes_as_a_json_string(body: bytes) -> None:
    assert json.loads(encode_text(Packet(7, body)))["body"] == body.decode(errors="replace")


@pytest.mark.parametrize(
    "text", ["", "[", "[]]", "{}", '{"op":true}', '{"op":5.0}', '{"op":4294967296}', "[" * 100_000]
)
def test_text_that_is_no_packets(text: str) -> None:
    with pytest.raises(WireError):
        decode_text(text)


def test_an_empty_array_is_no_packets() -> None:
    assert decode_text(" [ ] ") == []

import re
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wires import packets_in
from zim.protocol import frame
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet
from zim.protocol.framings.tcp import TCP, TcpReader

INT16, INT32 = st.integers(-(1 << 15), (1 << 15) - 1), st.integers(-(1 << 31), (1 << 31) - 1)
BODIES = st.binary(max_size=100)
PACKETS = st.tuples(INT32, INT32, INT16, BODIES).map(lambda fields: Packet(*fields))
NAMES = st.text(min_size=1, max_size=60).filter(lambda name: len(name.encode()) <= 255)
PLACED = st.builds(Packet, INT32, INT32, st.just(3), BODIES, NAMES, st.integers(0, (1 << 63) - 1))


def test_the_layout_is_goims() -> None:
    assert frame.encode(Packet(7, 1, 1, b"123")) == bytes.fromhex("00000013 0010 0001 00000007 00000001") + b"123"


@given(st.lists(PACKETS, max_size=6), st.lists(st.integers(0, 60), max_size=8))
def test_packets_survive_any_chunking(packets: list[Packet], cuts: list[int]) -> None:
    data, found, reader = TCP.join(list(map(frame.encode, packets))), list[Packet](), TCP.reader(200)
    for cut in [*cuts, len(data)]:
        chunk, data = data[:cut], data[cut:]
        found += reader.receive(chunk)
    assert found == packets
    assert not reader.is_within


@given(st.binary(max_size=400))
def test_any_bytes_are_packets_or_a_wire_error(data: bytes) -> None:
    reader, packets = TcpReader(100), list[Packet]()
    try:
        packets.extend(reader.receive(data))
    except WireError:
        assert data.startswith(b"".join(map(frame.encode, packets)))
        return
    assert b"".join(map(frame.encode, packets)) + reader._rest == data
    assert len(reader._rest) < 100


@pytest.mark.parametrize(
    ("length", "header", "reason"),
    [(15, 16, "below 16"), (-1, 16, "below 16"), (101, 16, "too large"), (16, 15, "not 16"), (16, -16, "not 16")],
)
def test_lengths_that_cannot_be(length: int, header: int, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        list(TcpReader(100).receive(struct.pack(">ihhii", length, header, 1, 7, 1)))


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"GET /sub HTTP/1.1\r\n", "it looks like HTTP; WebSocket is on a comet's `ws`, pushes go to a logic's `http`"),
        (b"POST /1/push?uid=7 HTTP/1.1\r\n", "it looks like HTTP"),
        (bytes.fromhex("16030102000100 01fc0303") + bytes(9), "it looks like TLS, which a proxy in front of zim"),
    ],
)
def test_what_speaks_another_protocol_is_told_so(data: bytes, hint: str) -> None:
    with pytest.raises(WireError, match=f"^packet too large: {re.escape(hint)}"):
        list(TcpReader(64 << 10).receive(data))


def test_the_longer_header_tells_stream_and_offset() -> None:
    packet = Packet(5, 0, 3, b"hi", "r:é", 258)
    data = bytes.fromhex("0000001e 001c 0003 00000005 00000000 0000000000000102") + "r:éhi".encode()
    assert frame.encode(packet) == data
    assert packets_in(data, 30) == [packet]


@given(st.lists(PACKETS | PLACED, max_size=6), st.lists(st.integers(0, 200), max_size=8))
@example([Packet(5, 0, 3, b"", "x" * 255, (1 << 63) - 1)], [16, 8, 100])
def test_packets_with_a_place_survive_any_chunking(packets: list[Packet], cuts: list[int]) -> None:
    data, found, reader = b"".join(map(frame.encode, packets)), list[Packet](), TcpReader(500, extended=True)
    for cut in [*cuts, len(data)]:
        chunk, data = data[:cut], data[cut:]
        found += reader.receive(chunk)
    assert found == packets
    assert not reader.is_within


@given(st.lists(st.binary(max_size=60) | PLACED.map(frame.encode), max_size=5).map(b"".join))
def test_any_bytes_are_packets_with_a_place_or_a_wire_error(data: bytes) -> None:
    reader, packets = TcpReader(400, extended=True), list[Packet]()
    try:
        packets.extend(reader.receive(data))
    except WireError:
        assert data.startswith(b"".join(map(frame.encode, packets)))
        return
    assert b"".join(map(frame.encode, packets)) + reader._rest == data
    assert len(reader._rest) < 400


def placed(header: int, version: int = 3, offset: int = 1, name: bytes = b"r:1", length: int = 0) -> bytes:
    """A packet with a longer header, right or wrong."""
    tail = struct.pack(">Q", offset) + name
    return struct.pack(">ihhii", length or 16 + len(tail), header, version, 5, 0) + tail


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (placed(27, version=1), "not 16"),
        (placed(24, name=b""), "cannot be"),
        (placed(15), "cannot be"),
        (placed(28), "cannot be"),
        (placed(280, name=b"x" * 256), "cannot be"),
        (placed(-1), "cannot be"),
        (placed(27, offset=1 << 63), "offset"),
        (placed(27, name=b"r:\xff"), "UTF-8"),
    ],
)
def test_longer_headers_that_cannot_be(data: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        packets_in(data, 1000)


def test_nobody_takes_a_longer_header_unasked() -> None:
    with pytest.raises(WireError, match="not 16"):
        list(TCP.reader(1000).receive(placed(27)))


@pytest.mark.parametrize(
    "packet",
    [Packet(5, stream="x" * 256, version=3), Packet(5, stream="x", version=1), Packet(5, 0, 3, b"", "x", 1 << 63)],
)
def test_places_that_no_packet_can_have(packet: Packet) -> None:
    with pytest.raises(ValueError, match="no packet"):
        frame.encode(packet)

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.protocol import frame
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet

INT16, INT32 = st.integers(-(1 << 15), (1 << 15) - 1), st.integers(-(1 << 31), (1 << 31) - 1)
PACKETS = st.builds(Packet, INT32, INT32, INT16, st.binary(max_size=100))


def test_the_layout_is_goims() -> None:
    assert frame.encode(Packet(7, 1, 1, b"123")) == bytes.fromhex("00000013 0010 0001 00000007 00000001") + b"123"


@given(st.lists(PACKETS, max_size=6), st.lists(st.integers(0, 60), max_size=8))
def test_packets_survive_any_chunking(packets: list[Packet], cuts: list[int]) -> None:
    data, found, rest = b"".join(map(frame.encode, packets)), [], b""
    for cut in [*cuts, len(data)]:
        chunk, data = data[:cut], data[cut:]
        more, rest = frame.split(rest + chunk, 200)
        found += more
    assert found == packets
    assert rest == b""


@given(st.binary(max_size=400))
def test_any_bytes_are_packets_or_a_wire_error(data: bytes) -> None:
    try:
        packets, rest = frame.split(data, 100)
    except WireError:
        return
    assert b"".join(map(frame.encode, packets)) + rest == data
    assert len(rest) < 100


@pytest.mark.parametrize(
    ("length", "header", "reason"),
    [(15, 16, "below 16"), (-1, 16, "below 16"), (101, 16, "too large"), (16, 15, "not 16"), (16, -16, "not 16")],
)
def test_lengths_that_cannot_be(length: int, header: int, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        frame.split(struct.pack(">ihhii", length, header, 1, 7, 1), 100)

"""All framings: whatever a client sends, however it is cut, is packets or a WireError; what goes out comes in again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.test_wire import CUTS, chunks
from zim.protocol import frame
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet
from zim.protocol.framings.base import Alive, Framing, Goodbye
from zim.protocol.speech import FRAMINGS
from zim.protocol.websocket import encode_frame

LIMIT = 200


def packet(op: int, body: bytes) -> Packet:
    """One without a place."""
    return Packet(op, 0, 0, body)


MASKED = st.tuples(st.sampled_from([0, 1, 2, 8, 9, 10]), st.binary(max_size=60) | st.just(b'{"op":4,"body":"x"}'))
PIECES = st.lists(
    st.binary(max_size=30)
    | MASKED.map(lambda said: encode_frame(*said, b"mask"))
    | st.builds(packet, st.integers(-1, 300), st.binary(max_size=60)).map(frame.encode),
    max_size=5,
)


def outcome(framing: Framing, pieces: list[bytes]) -> tuple[list[object], str]:
    """What comes out, and why it ended."""
    reader, found = framing.reader(LIMIT), list[object]()
    for piece in pieces:
        try:
            found.extend(reader.receive(piece))
        except WireError as error:
            return found, error.reason
    return found, ""


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda framing: type(framing).__name__)
@given(pieces=PIECES, cuts=CUTS)
def test_any_bytes_are_the_same_packets_or_the_same_error_however_they_are_cut(
    framing: Framing, pieces: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(pieces)
    found, reason = outcome(framing, [data])
    assert outcome(framing, chunks(data, cuts)) == (found, reason)
    assert all(isinstance(said, Packet | Alive | Goodbye) for said in found)


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda framing: type(framing).__name__)
@given(packets=st.lists(st.builds(packet, st.integers(0, 300), st.just(b"{}")), min_size=1, max_size=5))
def test_a_write_of_several_is_each_of_them_in_order(framing: Framing, packets: list[Packet]) -> None:
    parts = [framing.encode_part(packet) for packet in packets]
    written = framing.join(parts)
    at = 0
    for part in parts:
        at = written.index(part, at) + len(part)
    assert framing.encode(packets[0]) == framing.join(parts[:1])

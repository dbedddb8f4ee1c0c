"""The one reader of WebSocket frames, for both ends: RFC 6455, however the bytes are cut, in bounded memory."""

import struct
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.client.test_wire import CUTS, chunks
from zim.protocol.errors import WireError
from zim.protocol.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Binary,
    Close,
    FrameReader,
    Ping,
    Pong,
    Text,
    apply_mask,
    encode_close,
    encode_frame,
)

LIMIT = 300
BESIDE_BYTES = 14 + 125  # beside a message: a header and a control frame's body
MASKS = st.binary(min_size=4, max_size=4)
MASK = b"mask"


def encode_fragment(opcode: int, body: bytes, mask: bytes, is_final: bool) -> bytes:
    """One frame, perhaps not the last one of its message."""
    data = encode_frame(opcode, body, mask)
    return data if is_final else bytes([data[0] & 0x7F]) + data[1:]


def held(reader: FrameReader) -> int:
    """Bytes that it keeps."""
    return len(reader._rest) + len(reader._parts)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bool, bytes, list[object]]:
    """Which end reads, what it reads, and what comes out."""
    is_server = draw(st.booleans())
    mask = draw(MASKS) if is_server else b""
    data, expected = b"", list[object]()
    for is_text in draw(st.lists(st.booleans(), max_size=4)):
        body = draw(st.text(max_size=60)).encode() if is_text else draw(st.binary(max_size=140))
        pieces = chunks(body, draw(st.lists(st.integers(0, 200), max_size=3))) or [b""]
        for at, piece in enumerate(pieces):
            opcode = CONTINUATION if at else TEXT if is_text else BINARY
            data += encode_fragment(opcode, piece, mask, at == len(pieces) - 1)
            if at < len(pieces) - 1:
                ping = draw(st.binary(max_size=125))
                data += encode_frame(PING, ping, mask) + encode_frame(PONG, ping, mask)
                expected += [Ping(ping), Pong(ping)]
        expected.append(Text(body) if is_text else Binary(body))
    if draw(st.booleans()):
        reason = draw(st.text(max_size=20))
        data += encode_close(1001, reason, mask) + draw(st.binary(max_size=20))  # nobody reads what comes after it
        expected.append(Close(1001, reason))
    return is_server, data, expected


@given(conversations(), CUTS)
def test_any_cut_of_a_stream_gives_the_same(said: tuple[bool, bytes, list[object]], cuts: list[int]) -> None:
    is_server, data, expected = said
    reader = FrameReader(LIMIT, is_server)
    found = [event for chunk in chunks(data, cuts) for event in reader.receive(chunk)]
    assert found == expected
    assert not reader.is_within
    assert held(reader) == 0


@st.composite
def nearly_frames(draw: st.DrawFn) -> bytes:
    """A header that may be wrong in any bit, and some body."""
    first = draw(st.sampled_from([0x81, 0x82, 0x80, 0x01, 0x00, 0x88, 0x89, 0x8A]) | st.integers(0, 255))
    size = draw(st.integers(0, 127))
    more = b"" if size < 126 else draw(st.integers(0, 400)).to_bytes(2 if size == 126 else 8, "big")
    return bytes([first, draw(st.sampled_from([0, 0x80])) | size]) + more + draw(st.binary(max_size=140))


@given(st.booleans(), st.lists(nearly_frames() | st.binary(max_size=40), max_size=6), CUTS)
@example(False, [b"\x81\x7f" + struct.pack(">Q", LIMIT + 1)], [])
@example(True, [b"\x01\xfe" + struct.pack(">H", LIMIT) + MASK + bytes(LIMIT - 1)], [])
def test_any_bytes_break_it_with_a_wire_error_at_most_and_are_held_up_to_the_limit(
    is_server: bool, pieces: list[bytes], cuts: list[int]
) -> None:
    reader = FrameReader(LIMIT, is_server)
    code = 0
    for chunk in chunks(b"".join(pieces), cuts):
        try:
            found = list(reader.receive(chunk))
        except WireError as error:
            found, code = [], error.code
        assert all(len(event.body) <= LIMIT for event in found if isinstance(event, Text | Binary))
        if code:
            break
        assert held(reader) <= LIMIT + BESIDE_BYTES
    assert code in (0, 1002, 1007, 1009)


@pytest.mark.parametrize(
    ("is_server", "bad", "code", "reason"),
    [
        (True, encode_frame(TEXT, b"x"), 1002, "unmasked"),
        (False, encode_frame(TEXT, b"x", MASK), 1002, "masked"),
        (False, b"\xc1\x00", 1002, "reserved"),
        (False, b"\xa1\x00", 1002, "reserved"),
        (False, b"\x91\x00", 1002, "reserved"),
        (False, b"\x83\x00", 1002, "opcode"),
        (False, b"\x8b\x00", 1002, "opcode"),
        (False, b"\x09\x00", 1002, "control"),
        (False, b"\x89\x7e\x00\x7e", 1002, "control"),
        (False, encode_frame(CONTINUATION, b"x"), 1002, "out of order"),
        (False, b"\x01\x00" + encode_frame(TEXT, b"x"), 1002, "out of order"),
        (False, b"\x81\x7e\x00\x7d", 1002, "shortest"),
        (False, b"\x81\x7f" + struct.pack(">Q", 65535), 1002, "shortest"),
        (False, b"\x81\x7f" + struct.pack(">Q", 1 << 63), 1002, "shortest"),
        (False, b"\x81\x7e" + struct.pack(">H", LIMIT + 1), 1009, "more than 300"),
        (False, b"\x01\x7e\x01\x00" + bytes(256) + b"\x80\x2d", 1009, "more than 300"),
        (False, encode_frame(TEXT, b"\xff"), 1007, "UTF-8"),
        (False, b"\x01\x01\xc3" + encode_frame(CONTINUATION, b"x"), 1007, "UTF-8"),
        (False, encode_frame(CLOSE, b"x"), 1002, "close code"),
        *[(False, encode_close(code), 1002, "close code") for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)],
        (False, encode_frame(CLOSE, b"\x03\xe8\xff"), 1007, "close reason"),
    ],
)
def test_what_the_rfc_forbids_has_a_reason_and_what_came_before_is_kept(
    is_server: bool, bad: bytes, code: int, reason: str
) -> None:
    reader, found = FrameReader(LIMIT, is_server), list[object]()
    with pytest.raises(WireError, match=reason) as caught:
        found.extend(reader.receive(encode_frame(BINARY, b"before", MASK if is_server else b"") + bad))
    assert caught.value.code == code
    assert found == [Binary(b"before")]


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1013, 1014, 3000, 4999])
def test_close_codes_that_may_be(code: int) -> None:
    assert list(FrameReader(LIMIT, False).receive(encode_close(code, "é" * 100))) == [Close(code, "é" * 61)]


def test_an_empty_fragment_begins_a_message_too() -> None:
    reader = FrameReader(LIMIT, is_server=False)
    assert list(reader.receive(encode_fragment(TEXT, b"", b"", False))) == []
    assert reader.is_within
    assert list(reader.receive(encode_frame(CONTINUATION, b"x"))) == [Text(b"x")]
    assert not reader.is_within


def test_a_close_without_a_code() -> None:
    assert list(FrameReader(LIMIT, True).receive(encode_frame(CLOSE, b"", MASK))) == [Close()]


def test_masked_frames_of_the_rfc() -> None:
    data = bytes.fromhex("818537fa213d7f9f4d5158")  # 5.7
    assert encode_frame(TEXT, b"Hello", bytes.fromhex("37fa213d")) == data
    assert list(FrameReader(LIMIT, True).receive(data)) == [Text(b"Hello")]


@given(st.binary(max_size=2000), MASKS)
def test_masking_twice_is_nothing(body: bytes, mask: bytes) -> None:
    masked = apply_mask(body, mask)
    assert masked == bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))
    assert apply_mask(masked, mask) == body


@pytest.mark.parametrize("mask", [b"", MASK], ids=["server", "client"])
@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_sizes_of_frames(size: int, mask: bytes) -> None:
    data = encode_frame(BINARY, bytes(size), mask)
    marker = data[1] & 127
    assert (size if marker < 126 else int.from_bytes(data[2 : 4 if marker == 126 else 10], "big")) == size
    assert list(FrameReader(1 << 20, bool(mask)).receive(data)) == [Binary(bytes(size))]


def took_s(pieces: list[bytes]) -> float:
    """The best of two readings of these."""
    times = []
    for _ in range(2):
        reader, started = FrameReader(1 << 24, is_server=False), time.process_time()
        for piece in pieces:
            for _ in reader.receive(piece):
                pass
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fragments in one piece", "fragments", "bytes"])
def test_reading_is_linear(how: str) -> None:
    def pieces(count: int) -> list[bytes]:
        fragment = encode_fragment(CONTINUATION, b"xyz", b"", False)
        if how == "bytes":
            data = encode_frame(TEXT, bytes(count))
            return [data[at : at + 1] for at in range(len(data))]
        fragments = [encode_fragment(TEXT, b"", b"", False), *[fragment] * count]
        return [b"".join(fragments)] if how == "fragments in one piece" else fragments

    few, many = took_s(pieces(10_000)), took_s(pieces(320_000))
    assert many < 32 * few * 8  # were it quadratic, 32 times as much

"""goim's packet, the unit of the client wire: bytes ⇄ values.

Big-endian, on TCP as it is and in WebSocket frames (goim `libs/proto/proto.go`, v1.2):

    offset  0               4                6          8        12       16
            | length int32  | header int16   | version  | op     | seq    | body …
            | whole packet  | length: 16     | int16    | int32  | int32  |

In zim's vocabulary, version 3, a pushed message has a longer header, which tells its place in a stream:

    offset  16               24
            | offset uint64  | the stream's name in UTF-8, 1 to 255 bytes: up to the header length | body …
"""

import struct
from typing import NamedTuple

from zim.fabric.limits import OFFSET, STREAM_BYTES
from zim.fabric.push import PUSH_OP, TEST_OPS
from zim.protocol.errors import WireError

HEADER_BYTES = 16
_METHODS = (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN", b"PRI ")
_HANDSHAKE = b"\x16\x03"  # RFC 8446 5.1
VERSION = 3  # of zim's vocabulary, the only one whose headers may be longer
MAX_STREAM_BYTES = 255  # of a stream's name
_HEADER = struct.Struct(">ihhii")
_OFFSET = struct.Struct(">Q")
_NAME_AT = HEADER_BYTES + _OFFSET.size


class Op:
    """The operations of goim v1 (goim `libs/define/operation.go`), and from 20 on those of zim's vocabulary."""

    HEARTBEAT, HEARTBEAT_REPLY = 2, 3
    UPSTREAM, PUSH = 4, PUSH_OP
    DISCONNECT = 6
    AUTH, AUTH_REPLY = 7, 8
    JOIN, JOINED = 20, 21
    LEAVE, LEFT = 22, 23
    ACKNOWLEDGE, ACKNOWLEDGED = 24, 25
    GAP = 26
    REFRESH, REFRESHED = 27, 28
    HISTORY, HISTORY_REPLY = 29, 30
    TEST, TEST_REPLY = TEST_OPS


class Packet(NamedTuple):
    """One packet. version is int16, op and seq are int32, body is the application's bytes.

    stream and offset say where a pushed message of version 3 stands; all other packets have none.
    """

    op: int
    seq: int = 0
    version: int = 0
    body: bytes = b""
    stream: str = ""
    offset: int = 0


def encode(packet: Packet) -> bytes:
    """The packet's bytes; the longer header if it has a stream.

    Raises:
        struct.error: a number is beyond its field.
        ValueError: a stream's name that is too long or cannot be UTF-8, an offset beyond 2**63 - 1, or either in a
            packet of another version than 3.
    """
    op, seq, version, body, stream, offset = packet
    if not stream:
        return _HEADER.pack(HEADER_BYTES + len(body), HEADER_BYTES, version, op, seq) + body
    name = stream.encode()
    if len(name) > STREAM_BYTES or not 0 <= offset <= OFFSET or version != VERSION:
        raise ValueError("no packet has such a place in a stream")
    header = _NAME_AT + len(name)
    return _HEADER.pack(header + len(body), header, version, op, seq) + _OFFSET.pack(offset) + name + body


def parse(data: bytes | bytearray, at: int, max_bytes: int, extended: bool = False) -> tuple[Packet, int] | None:
    """The packet that starts at `at`, and where the next one does; nothing if it is not whole yet.

    Args:
        max_bytes: of one packet, header included.
        extended: packets of version 3 may have the longer header, as those have that go to a client.

    Raises:
        WireError: a length that cannot be, or a longer header that does not hold what it should.
    """
    if len(data) - at < HEADER_BYTES:
        return None
    length, header, version, op, seq = _HEADER.unpack_from(data, at)
    if length < HEADER_BYTES:
        raise WireError("packet length below 16")
    if length > max_bytes:
        raise WireError(f"packet too large{_meant(data, at)}")
    if header != HEADER_BYTES:
        if not extended or version != VERSION:
            raise WireError("header length is not 16")
        if not _NAME_AT < header <= min(length, _NAME_AT + STREAM_BYTES):
            raise WireError("header length that cannot be")
    if len(data) - at < length:
        return None
    body = bytes(data[at + header : at + length])
    if header == HEADER_BYTES:
        return Packet(op, seq, version, body), at + length
    (offset,) = _OFFSET.unpack_from(data, at + HEADER_BYTES)
    if offset > OFFSET:
        raise WireError("offset beyond 2**63 - 1")
    try:
        stream = data[at + _NAME_AT : at + header].decode()
    except UnicodeDecodeError:
        raise WireError("stream's name is not UTF-8") from None
    return Packet(op, seq, version, body, stream, offset), at + length


def _meant(data: bytes | bytearray, at: int) -> str:
    """What bytes look like that are no packet; "" if like nothing that people send here by mistake."""
    if data.startswith(_METHODS, at):
        return ": it looks like HTTP; WebSocket is on a comet's `ws`, pushes go to a logic's `http`"
    if data.startswith(_HANDSHAKE, at):
        return ": it looks like TLS, which a proxy in front of zim speaks"
    return ""

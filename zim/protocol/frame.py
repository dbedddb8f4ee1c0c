"""goim's packet, the unit of the client wire: bytes ⇄ values.

Big-endian, on TCP as it is and in WebSocket frames (goim `libs/proto/proto.go`, v1.2):

    offset  0               4                6          8        12       16
            | length int32  | header int16   | version  | op     | seq    | body …
            | whole packet  | length: 16     | int16    | int32  | int32  |
"""

import struct
from typing import NamedTuple

from zim.protocol.errors import WireError

HEADER_BYTES = 16
_HEADER = struct.Struct(">ihhii")


class Op:
    """The operations of goim v1 (goim `libs/define/operation.go`)."""

    HEARTBEAT, HEARTBEAT_REPLY = 2, 3
    UPSTREAM, PUSH = 4, 5
    AUTH, AUTH_REPLY = 7, 8
    TEST, TEST_REPLY = 254, 255


class Packet(NamedTuple):
    """One packet. version is int16, op and seq are int32, body is the application's bytes."""

    op: int
    seq: int = 0
    version: int = 0
    body: bytes = b""


def encode(packet: Packet) -> bytes:
    """The packet's bytes.

    Raises:
        struct.error: a number is beyond its field.
    """
    op, seq, version, body = packet
    return _HEADER.pack(HEADER_BYTES + len(body), HEADER_BYTES, version, op, seq) + body


def split(data: bytes, max_bytes: int) -> tuple[list[Packet], bytes]:
    """Cuts a byte stream into packets.

    Args:
        data: what has not been cut yet, from the start of a packet on.
        max_bytes: of one packet, header included.

    Returns:
        The whole packets, and the bytes of the one that is not whole yet (fewer than max_bytes).

    Raises:
        WireError: a length that cannot be. Whole packets before it are lost, as is the connection.
    """
    packets: list[Packet] = []
    at, end = 0, len(data)
    while end - at >= HEADER_BYTES:
        length, header, version, op, seq = _HEADER.unpack_from(data, at)
        if length < HEADER_BYTES:
            raise WireError("packet length below 16")
        if length > max_bytes:
            raise WireError("packet too large")
        if header != HEADER_BYTES:
            raise WireError("header length is not 16")
        if end - at < length:
            break
        packets.append(Packet(op, seq, version, data[at + HEADER_BYTES : at + length]))
        at += length
    return packets, data[at:]

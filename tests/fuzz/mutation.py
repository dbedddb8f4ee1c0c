"""Inputs out of inputs, by a seeded random: bits, numbers, pieces of others, what a grammar of ours likes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.fuzz.target import LONGEST_BYTES

# What means something to one parser or another.
_TEXT = r"""null true NaN Infinity -0 1e999 0.1 -1 9223372036854775807 9223372036854775808 18446744073709551616 * ? [!a]
% %00 %2F & = ; # / .. // @ [::1] 0x10 [ ] { } " ' , : \ \u0000 \ud83d Content-Length: Transfer-Encoding:chunked Host:x
Upgrade:websocket HTTP/1.1 zim_ Bearer r: u: anonymous-"""
_TOKENS = [
    *_TEXT.encode().split(),
    *(b"\0", b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\t", b"\x7f", b"\xff", b"0\r\n\r\n", b"9" * 30, b"[" * 70),
    *("é".encode(), "😀".encode(), b"\xed\xa0\x80"),
    *(b"\x81\x80", b"\x88\x82", b"\x89\xfe\x00\x7e", b"\x81\xff" + b"\xff" * 8),  # WebSocket
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8),  # msgpack
    *(b"\xd3\x80" + bytes(7), b"\xca\x7f\xc0\0\0", b"\x91" * 40),
]


def _at(r: random.Random, data: bytearray) -> int:
    return r.randrange(len(data) + 1)


def _flip(r: random.Random, data: bytearray, _: bytes) -> None:
    if data:
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def _byte(r: random.Random, data: bytearray, _: bytes) -> None:
    if data:
        data[r.randrange(len(data))] = r.choice((0, 1, 0x7F, 0x80, 0xFF, r.randrange(256)))


def _insert(r: random.Random, data: bytearray, _: bytes) -> None:
    at = _at(r, data)
    data[at:at] = r.choice(_TOKENS)


def _overwrite(r: random.Random, data: bytearray, _: bytes) -> None:
    at, token = _at(r, data), r.choice(_TOKENS)
    data[at : at + len(token)] = token


def _delete(r: random.Random, data: bytearray, _: bytes) -> None:
    at = _at(r, data)
    del data[at : at + r.choice((1, 1, 2, 4, 16, 64))]


def _repeat(r: random.Random, data: bytearray, _: bytes) -> None:
    at = _at(r, data)
    piece = bytes(data[at : at + r.choice((1, 2, 4, 16))])
    data[at:at] = piece * r.choice((1, 2, 8, 70, 300))


def _splice(r: random.Random, data: bytearray, other: bytes) -> None:
    if other:
        begin = r.randrange(len(other))
        at = _at(r, data)
        data[at : at + r.choice((0, 0, 8, len(data)))] = other[begin : begin + r.randrange(1, len(other) - begin + 1)]


def _number(r: random.Random, data: bytearray, _: bytes) -> None:
    size = r.choice((1, 2, 4, 8))
    at = _at(r, data)
    number = r.choice((0, 1, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1, r.getrandbits(8 * size)))
    data[at : at + size] = number.to_bytes(size, r.choice(("big", "little")))


def _digits(r: random.Random, data: bytearray, _: bytes) -> None:
    """A number in digits becomes another one."""
    places = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if places:
        at = r.choice(places)
        data[at : at + 1] = r.choice(
            (b"", b"0", b"-", b"1e9", b"4294967296", b"9" * 20, str(r.getrandbits(40)).encode())
        )


_WAYS: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    *(_flip, _byte, _insert, _overwrite, _delete, _repeat, _splice, _splice, _number, _digits),
)


def mutated(r: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in a few ways."""
    data = bytearray(r.choice(seeds))
    for _ in range(r.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        r.choice(_WAYS)(r, data, r.choice(seeds))
    return bytes(data[:LONGEST_BYTES])

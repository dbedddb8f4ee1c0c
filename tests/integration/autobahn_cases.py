"""The cases of the Autobahn testsuite that concern a server without extensions, by their numbers, as a table.

Sections 1 (framing), 2 (pings), 3 (reserved bits), 4 (opcodes), 5 (fragments), 6 (UTF-8), 7 (closing), 9 (limits) and
10 (automatic fragments). Sections 12 and 13 are about compression, 8 and 11 are empty. What each sends, and what a
server must answer, is from crossbario/autobahn-testsuite, `case/`; written anew.

A payload of a text message is what an echo server echoes; who runs a case wraps it in what its server understands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NORMAL, PROTOCOL_ERROR, INVALID = 1000, 1002, 1007

FRAME_WISE, WHOLE = 0, -1  # how the bytes go out: each frame alone; all at once; else so many octets at a time


class Frame(NamedTuple):
    """One frame from the client. rsv: the three reserved bits."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0


class Case(NamedTuple):
    """What is sent, and what must come of it.

    Attributes:
        number: Autobahn's.
        frames: of the client; it closes with 1000 after them, if no frame of them is a close.
        echoes: (PONG, payload) and (TEXT or BINARY, payload), in this order.
        code: of the server's close frame, or several that will do.
        chop: how many octets are sent at a time.
    """

    number: str
    frames: Sequence[Frame]
    echoes: Sequence[tuple[int, bytes]]
    code: tuple[int, ...] = (NORMAL,)
    chop: int = WHOLE


def _text(payload: bytes) -> Frame:
    return Frame(TEXT, payload)


def _fragments(payload: bytes, size: int, opcode: int = TEXT) -> list[Frame]:
    cut = [payload[at : at + size] for at in range(0, len(payload), size)]
    return [Frame(0 if n else opcode, piece, n == len(cut) - 1) for n, piece in enumerate(cut)]


def _repeated(piece: bytes, size: int) -> bytes:
    return (piece * (size // len(piece) + 1))[:size]


_SIZES = (0, 125, 126, 127, 128, 65_535, 65_536)


def _framing() -> Iterator[Case]:
    for section, opcode, byte in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for n, size in enumerate((*_SIZES, 65_536), 1):
            payload = byte * size
            yield Case(f"1.{section}.{n}", [Frame(opcode, payload)], [(opcode, payload)], chop=997 if n == 8 else WHOLE)


def _pings() -> Iterator[Case]:
    binary, long = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125
    yield Case("2.1", [Frame(PING)], [(PONG, b"")])
    yield Case("2.2", [Frame(PING, b"Hello, world!")], [(PONG, b"Hello, world!")])
    yield Case("2.3", [Frame(PING, binary)], [(PONG, binary)])
    yield Case("2.4", [Frame(PING, long)], [(PONG, long)])
    yield Case("2.5", [Frame(PING, long + b"\xfe")], [], (PROTOCOL_ERROR,))
    yield Case("2.6", [Frame(PING, long)], [(PONG, long)], chop=1)
    yield Case("2.7", [Frame(PONG)], [])
    yield Case("2.8", [Frame(PONG, b"unsolicited pong payload")], [])
    yield Case(
        "2.9", [Frame(PONG, b"unsolicited pong payload"), Frame(PING, b"ping payload")], [(PONG, b"ping payload")]
    )
    many = [b"payload-%d" % n for n in range(10)]
    for number, chop in (("2.10", WHOLE), ("2.11", 1)):
        yield Case(number, [Frame(PING, p) for p in many], [(PONG, p) for p in many], chop=chop)


def _reserved_bits() -> Iterator[Case]:
    hello, broken = b"Hello, world!", (PROTOCOL_ERROR,)
    yield Case("3.1", [Frame(TEXT, hello, rsv=1)], [], broken)
    for number, rsv, chop in (("3.2", 2, WHOLE), ("3.3", 3, FRAME_WISE), ("3.4", 4, 1)):
        frames = [_text(hello), Frame(TEXT, hello, rsv=rsv), Frame(PING)]
        yield Case(number, frames, [(TEXT, hello)], broken, chop)
    yield Case("3.5", [Frame(BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", rsv=5)], [], broken)
    yield Case("3.6", [Frame(PING, hello, rsv=6)], [], broken)
    yield Case("3.7", [Frame(CLOSE, rsv=7)], [], broken)


def _opcodes() -> Iterator[Case]:
    hello, broken = b"Hello, world!", (PROTOCOL_ERROR,)
    for section, first in ((1, 3), (2, 11)):
        yield Case(f"4.{section}.1", [Frame(first)], [], broken)
        yield Case(f"4.{section}.2", [Frame(first + 1, b"reserved opcode payload")], [], broken)
        for n, payload, chop in ((3, b"", WHOLE), (4, hello, WHOLE), (5, b"", 1)):
            frames = [_text(hello), Frame(first + n - 1, payload), Frame(PING)]
            yield Case(f"4.{section}.{n}", frames, [(TEXT, hello)], broken, chop)


_CHOPS = (WHOLE, FRAME_WISE, 1)


def _fragmentation() -> Iterator[Case]:
    one, two, three, broken = b"fragment1", b"fragment2", b"fragment3", (PROTOCOL_ERROR,)
    yield Case("5.1", [Frame(PING, one, False), Frame(0, two)], [], broken)
    yield Case("5.2", [Frame(PONG, one, False), Frame(0, two)], [], broken)
    for n, chop in enumerate(_CHOPS):
        yield Case(f"5.{3 + n}", [Frame(TEXT, one, False), Frame(0, two)], [(TEXT, one + two)], chop=chop)
    for n, chop in enumerate(_CHOPS):
        frames = [Frame(TEXT, one, False), Frame(PING, b"ping payload"), Frame(0, two)]
        yield Case(f"5.{6 + n}", frames, [(PONG, b"ping payload"), (TEXT, one + two)], chop=chop)
    for n, (fin, chop) in enumerate([(fin, chop) for fin in (True, False) for chop in _CHOPS]):
        frames = [Frame(0, b"non-continuation payload", fin), _text(b"Hello, world!")]
        yield Case(f"5.{9 + n}", frames, [], broken, chop)
    frames = [Frame(TEXT, one, False), Frame(0, two), Frame(0, three, False), _text(b"fragment4")]
    yield Case("5.15", frames, [(TEXT, one + two)], broken)
    for number, fin in (("5.16", False), ("5.17", True)):
        yield Case(number, [Frame(0, one, fin), Frame(TEXT, two, False), Frame(0, three)] * 2, [], broken)
    yield Case("5.18", [Frame(TEXT, one, False), _text(two)], [], broken)
    parts = [b"fragment%d" % n for n in range(1, 6)]
    frames = _fragments(b"".join(parts), 9)
    frames = [*frames[:2], Frame(PING, b"pongme 1!"), *frames[2:4], Frame(PING, b"pongme 2!"), frames[4]]
    echoes = [(PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, b"".join(parts))]
    for number, chop in (("5.19", WHOLE), ("5.20", FRAME_WISE)):
        yield Case(number, frames, echoes, chop=chop)


_KOSME = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
_SURROGATE = _KOSME + b"\xed\xa0\x80" + b"edited"
_TOO_FAR = _KOSME + b"\xf4\x90\x80\x80" + b"edited"  # beyond U+10FFFF


def _utf8() -> Iterator[Case]:
    middle, wrong = b"middle frame payload", (INVALID,)
    yield Case("6.1.1", [_text(b"")], [(TEXT, b"")])
    yield Case("6.1.2", [Frame(TEXT, b"", False), Frame(0, b"", False), Frame(0)], [(TEXT, b"")])
    yield Case("6.1.3", [Frame(TEXT, b"", False), Frame(0, middle, False), Frame(0)], [(TEXT, middle)])
    mixed = "Hello-µ@ßöäüàá-UTF-8!!".encode()
    yield Case("6.2.1", [_text(mixed)], [(TEXT, mixed)])
    yield Case("6.2.2", [Frame(TEXT, mixed[:12], False), Frame(0, mixed[12:])], [(TEXT, mixed)])
    yield Case("6.2.3", _fragments(mixed, 1), [(TEXT, mixed)])
    yield Case("6.2.4", _fragments(_KOSME, 1), [(TEXT, _KOSME)])
    yield Case("6.3.1", [_text(_SURROGATE)], [], wrong)
    yield Case("6.3.2", _fragments(_SURROGATE, 1), [], wrong)
    # The suite would have the next four found before the message ends, and calls it NON-STRICT where they are not.
    late = [Frame(TEXT, _KOSME, False), Frame(0, _TOO_FAR[11:15], False), Frame(0, b"edited")]
    yield Case("6.4.1", late, [], wrong, FRAME_WISE)
    late = [Frame(TEXT, _TOO_FAR[:12], False), Frame(0, _TOO_FAR[12:13], False), Frame(0, _TOO_FAR[13:])]
    yield Case("6.4.2", late, [], wrong, FRAME_WISE)
    yield Case("6.4.3", [_text(_TOO_FAR)], [], wrong, 11)
    yield Case("6.4.4", [_text(_TOO_FAR)], [], wrong, 12)
    for section, payloads in enumerate(_sequences(), 5):
        for n, payload in enumerate(payloads, 1):
            is_right = _is_utf8(payload)
            yield Case(f"6.{section}.{n}", [_text(payload)], [(TEXT, payload)] if is_right else [], _close(is_right))


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _close(is_right: bool) -> tuple[int, ...]:
    return (NORMAL,) if is_right else (INVALID,)


def _sequences() -> Iterator[list[bytes]]:
    """6.5 to 6.23, which are Markus Kuhn's UTF-8 stress test."""
    yield [b"hello" + sign + b"world" for sign in (b"$", b"\xc2\xa2", b"\xe2\x82\xac", b"\xf0\xa4\xad\xa2")] + [_KOSME]
    yield [_KOSME[:size] for size in range(1, len(_KOSME) + 1)]
    yield [b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]
    yield [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]
    yield [b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]
    yield [b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]
    yield [b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"]
    yield [*(b"\x80", b"\xbf"), *((b"\x80\xbf" * 3)[:size] for size in range(2, 7)), bytes(range(0x80, 0xBF))]
    starts = (range(0xC0, 0xDF), range(0xE0, 0xEF), range(0xF0, 0xF7), range(0xF8, 0xFB), range(0xFC, 0xFD))
    yield [b"".join(bytes([byte, 0x20]) for byte in some) for some in starts]
    cut = [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"]
    cut += [b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]
    yield cut
    yield [b"".join(cut)]
    yield [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]
    leads = (b"\xe0", b"\xf0\x80", b"\xf8\x80\x80", b"\xfc\x80\x80\x80")
    yield [b"\xc0\xaf", *(lead + b"\x80\xaf" for lead in leads)]
    yield [b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"]
    yield [b"\xc0\x80", *(lead + b"\x80\x80" for lead in leads)]
    high, low = (b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf"), (b"\xed\xb0\x80", b"\xed\xbf\xbf")
    yield [*high, b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf"]
    yield [one + other for one in high for other in low]
    planes = [chr(plane << 16 | end).encode() for plane in range(1, 17) for end in (0xFFFE, 0xFFFF)]
    yield [b"\xef\xbf\xbe", b"\xef\xbf\xbf", *planes]
    yield [b"\xef\xbf" + bytes([byte]) for byte in range(0xB9, 0xC0)]


def _close_frame(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, code.to_bytes(2, "big") + reason)


VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
INVALID_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)


def _closing() -> Iterator[Case]:
    hello, normal, broken = b"Hello World!", _close_frame(NORMAL), (PROTOCOL_ERROR,)
    yield Case("7.1.1", [_text(hello)], [(TEXT, hello)])
    yield Case("7.1.2", [normal, Frame(CLOSE)], [])
    yield Case("7.1.3", [normal, Frame(PING)], [])
    yield Case("7.1.4", [normal, _text(hello)], [])
    yield Case("7.1.5", [Frame(TEXT, b"fragment1", False), normal, Frame(0, b"fragment2")], [])
    large = _repeated(b"BAsd7&jh23", 256 << 10)
    yield Case("7.1.6", [_text(large), _text(hello), normal, Frame(PING)], [(TEXT, large), (TEXT, hello)])
    yield Case("7.3.1", [Frame(CLOSE)], [])
    yield Case("7.3.2", [Frame(CLOSE, b"a")], [], broken)
    yield Case("7.3.3", [normal], [])
    yield Case("7.3.4", [_close_frame(NORMAL, hello)], [])
    yield Case("7.3.5", [_close_frame(NORMAL, b"*" * 123)], [])
    yield Case("7.3.6", [_close_frame(NORMAL, b"*" * 124)], [], broken)
    yield Case("7.5.1", [_close_frame(NORMAL, _SURROGATE)], [], (PROTOCOL_ERROR, INVALID))
    for n, code in enumerate(VALID_CODES, 1):
        yield Case(f"7.7.{n}", [_close_frame(code)], [], (NORMAL, code))
    for n, code in enumerate(INVALID_CODES, 1):
        yield Case(f"7.9.{n}", [_close_frame(code)], [], broken)
    for number, code in (("7.13.1", 5000), ("7.13.2", 65535)):  # the suite leaves it open
        yield Case(number, [_close_frame(code)], [], (NORMAL, code, PROTOCOL_ERROR))


_KIB, _MIB = 1 << 10, 1 << 20


def _limits() -> Iterator[Case]:
    for section, opcode, piece in ((1, TEXT, b"BAsd7&jh23"), (2, BINARY, b"\x00\xfe\x23\xfa\xf0")):
        for n, size in enumerate((64 * _KIB, 256 * _KIB, _MIB, 4 * _MIB, 8 * _MIB, 16 * _MIB), 1):
            payload = _repeated(piece, size)
            yield Case(f"9.{section}.{n}", [Frame(opcode, payload)], [(opcode, payload)])
    for section, opcode, piece in ((3, TEXT, b"*"), (4, BINARY, b"\xfe")):
        payload = _repeated(piece, 4 * _MIB)
        for n, size in enumerate([64 << 2 * n for n in range(9)], 1):  # 64 bytes to 4 MiB
            yield Case(f"9.{section}.{n}", _fragments(payload, size, opcode), [(opcode, payload)])
    for section, opcode, piece in ((5, TEXT, b"BAsd7&jh23"), (6, BINARY, b"\x00\xfe\x23\xfa\xf0")):
        payload = _repeated(piece, _MIB)
        for n, chop in enumerate((64, 128, 256, 512, 1024, 2048), 1):
            yield Case(f"9.{section}.{n}", [Frame(opcode, payload)], [(opcode, payload)], chop=chop)
    for section, opcode, byte in ((7, TEXT, b"*"), (8, BINARY, b"\xfe")):
        for n, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            yield Case(f"9.{section}.{n}", [Frame(opcode, byte * size)] * 1000, [(opcode, byte * size)] * 1000)


CASES: tuple[Case, ...] = (
    *(*_framing(), *_pings(), *_reserved_bits(), *_opcodes(), *_fragmentation(), *_utf8(), *_closing(), *_limits()),
    Case("10.1.1", _fragments(b"*" * 65_536, 1_300), [(TEXT, b"*" * 65_536)]),
)

"""What is fuzzed: a function that takes any bytes, and the errors that it may let out. All else is a finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

LONGEST_BYTES = 8_192  # of one input


class Target(NamedTuple):
    """One parser.

    Attributes:
        run: feeds it these bytes, and asserts what holds for all of them.
        allowed: what may be wrong with bytes, in zim's own words.
    """

    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = ()


def pieces(data: bytes) -> list[bytes]:
    """The bytes as a network may cut them: the first byte says how long pieces are, 1 to 128, or all of it."""
    size, data = (data[0], data[1:]) if data else (255, b"")
    if size >= 128:
        return [data]
    return [data[at : at + size + 1] for at in range(0, len(data), size + 1)]


def parts(data: bytes, count: int) -> list[bytes]:
    """So many fields of an input, with NUL between; the last one has the rest."""
    found = data.split(b"\0", count - 1)
    return found + [b""] * (count - len(found))

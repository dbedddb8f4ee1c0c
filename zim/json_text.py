"""JSON, strictly; and read by hand, so that a value stays the bytes it was: json would turn 1.0e0 into 1.0. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

_SPACE = re.compile(r"[ \t\n\r]*")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# JSON and nothing else: Python alone takes NaN. Numbers stay text, as it would refuse to convert very long ones.
STRICT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse)


class Scanner:
    """Goes through a text. Its methods raise ValueError where that is not JSON.

    Args:
        decoder: says what a value is.
    """

    def __init__(self, text: str, decoder: json.JSONDecoder) -> None:
        self.text, self.at = text, 0
        self._decoder = decoder

    def take(self, mark: str) -> bool:
        """Passes over white space, and over this mark if it stands there."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        is_there = self.text.startswith(mark, self.at)
        self.at += len(mark) * is_there
        return is_there

    def want(self, mark: str) -> None:
        """Passes over this mark."""
        if not self.take(mark):
            raise ValueError(f"no {mark}")

    def end(self) -> None:
        """Nothing more may come."""
        self.take("")
        if self.at != len(self.text):
            raise ValueError("text after the end")

    def items(self, end: str, read: Callable[[], T]) -> Iterator[T]:
        """What stands between commas, up to the mark of the end."""
        if self.take(end):
            return
        yield read()
        while self.take(","):
            yield read()
        self.want(end)

    def member(self) -> tuple[str, Any, str]:
        """A member of an object: its key, its value, and that as it is written."""
        key, raw = self.value()
        if not raw.startswith('"'):
            raise ValueError("not a key")
        self.want(":")
        return key, *self.value()

    def value(self) -> tuple[Any, str]:
        """A value, and how it is written. Raises RecursionError too."""
        self.take("")
        start = self.at
        value, self.at = self._decoder.raw_decode(self.text, start)
        return value, self.text[start : self.at]

"""What JSON is, wherever zim reads it: RFC 8259, in UTF-8, and not nested deeper than MAX_DEPTH. Pure.

Half a surrogate pair, as JavaScript makes of half an emoji, is JSON, too: it passes in what is the application's. There
values are read by hand, so that they stay the bytes they were: json would turn 1.0e0 into 1.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from msgspec import Raw

T = TypeVar("T")

MAX_DEPTH = 64  # of arrays and objects; Python's own limit moves with its version

_NAMES = re.compile(rb'"((?:[^"\\]|\\.)*+)"[ \t\r\n]*:', re.DOTALL)
ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # of a surrogate pair
_SPACE = re.compile(r"[ \t\n\r]*")
_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# JSON and nothing else: Python alone takes NaN. Numbers stay text, as it would refuse to convert very long ones.
STRICT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse)


class Pairs(list[tuple[str, Any]]):
    """An object's members."""


# Numbers stay text: Python would refuse to convert very long ones.
PAIRS = json.JSONDecoder(object_pairs_hook=Pairs, parse_int=str, parse_float=str)


def is_too_deep(document: bytes) -> bool:
    """Whether its arrays and objects are nested deeper than MAX_DEPTH."""
    if document.count(b"[") + document.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _MARKS.finditer(document):
        if (mark := match[0]) in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif mark in b"]}":
            depth -= 1
    return False


def is_json(document: bytes) -> bool:
    """Whether these bytes are one JSON value."""
    try:
        text = document.decode()
        if is_too_deep(document):
            return False
        STRICT.decode(text)
    except ValueError:
        return False
    return True


def twice_there(document: bytes) -> str:
    """A name that an object has twice, not within others; "" if there is none. Readers differ in which one they take.

    Args:
        document: an object, and JSON.
    """
    names = _NAMES.findall(document)
    if len(names) == len(set(names)) and b"\\u" not in document:
        return ""  # no name at any depth, and none can be spelled in two ways
    seen = set[str]()
    for name, _ in PAIRS.decode(document.decode()):
        if name in seen:
            return str(name)
        seen.add(name)
    return ""


def as_json(body: bytes) -> Raw | None:
    """The bytes as a JSON value; None: they are none."""
    return Raw(body) if is_json(body) else None


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

    def key(self) -> str:
        """The key of a member of an object, up to where its value begins."""
        key, raw = self.value()
        if not raw.startswith('"'):
            raise ValueError("not a key")
        self.want(":")
        return str(key)

    def member(self) -> tuple[str, Any, str]:
        """A member of an object: its key, its value, and that as it is written."""
        return self.key(), *self.value()

    def match(self, pattern: re.Pattern[str]) -> str:
        """What a pattern finds here, behind white space."""
        self.take("")
        if (match := pattern.match(self.text, self.at)) is None:
            raise ValueError("something else is here")
        self.at = match.end()
        return match[0]

    def value(self) -> tuple[Any, str]:
        """A value, and how it is written. Raises RecursionError too."""
        self.take("")
        start = self.at
        value, self.at = self._decoder.raw_decode(self.text, start)
        return value, self.text[start : self.at]

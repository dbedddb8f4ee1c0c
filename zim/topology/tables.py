"""TOML tables → typed values. Every problem is collected with its dotted key, so that one run shows all of them.

Pure; knows nothing of nodes. A reader gives None where there is no usable value: the problem is then already listed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_SHOWN_CHARS = 60


class Table:
    """One table of the file, read key by key.

    Attributes:
        key: its dotted key, `comet[0]`; "" for the whole file.
        problems: what is wrong with the file so far, one sentence each, in the order found.
    """

    def __init__(self, key: str, values: dict[str, Any], problems: list[str]) -> None:
        self.key = key
        self.values = values
        self.problems = problems

    def path(self, key: str) -> str:
        """The dotted key of one of its keys; of the table itself for ""."""
        return f"{self.key}.{key}".strip(".")

    def add(self, key: str, sentence: str) -> None:
        """Notes a problem of one of its keys, or of the table itself for ""."""
        self.problems.append(f"{self.path(key)}: {sentence}")

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Notes each key that is not one of `known`, with the likeliest meaning and the list."""
        names = list(known)
        for key in self.values:
            if key not in names:
                close = get_close_matches(key, names, n=1, cutoff=0.6)
                hint = f"did you mean {close[0]}? There" if close else "there"
                self.add(_as_key(key), f"is not a key; {hint} are {', '.join(names)}")

    def require(self, key: str, right: str) -> bool:
        """Notes a missing key, saying what would be right."""
        if key in self.values:
            return True
        self.add(key, f"is missing; right is {right}")
        return False

    def read(self, readers: Mapping[str, Reader], required: Mapping[str, str]) -> dict[str, Any]:
        """Its values, as far as they are right. Notes keys that are unknown or missing, and values that are wrong.

        Args:
            readers: of each key that it may have.
            required: what would be right, of each key that it must have.
        """
        self.refuse_unknown(readers)
        found = {key: reader(self, key) for key, reader in readers.items() if self._has(key, required)}
        return {key: value for key, value in found.items() if value is not None}

    def table(self, key: str, right: str) -> Table | None:
        """A table in it."""
        value = checked(lambda v: isinstance(v, dict), right)(self, key)
        return None if value is None else Table(self.path(key), value, self.problems)

    def tables(self, key: str) -> list[Table]:
        """An array of tables; empty if it is something else."""
        value = self.values[key]
        if isinstance(value, dict):
            self.add(key, f"is one table, written [{key}]; right is [[{key}]], as there may be several")
            return []
        if not isinstance(value, list) or not value:
            self.add(key, f"is {show(value)}; right is one or more tables, each written [[{key}]]")
            return []
        found = []
        for i, entry in enumerate(value):
            if isinstance(entry, dict):
                found.append(Table(f"{self.path(key)}[{i}]", entry, self.problems))
            else:
                self.add(f"{key}[{i}]", f"is {show(entry)}; right is a table, written [[{key}]]")
        return found

    def _has(self, key: str, required: Mapping[str, str]) -> bool:
        return self.require(key, required[key]) if key in required else key in self.values


Reader = Callable[[Table, str], Any]
"""Gives the value of a key; None if it is wrong, which is noted then."""


def checked(is_right: Callable[[Any], bool], right: str, convert: Callable[[Any], object] = lambda v: v) -> Reader:
    """Reads what is right, and converts it. Of what is not it says what would be."""

    def read(table: Table, key: str) -> Any:
        value = table.values.get(key)
        if is_right(value):
            return convert(value)
        table.add(key, f"is {show(value)}; right is {right}")
        return None

    return read


def text(right: str) -> Reader:
    """Reads a string that is not empty and has no control characters."""
    return checked(lambda v: isinstance(v, str) and v != "" and v.isprintable(), right)


def texts(right: str) -> Reader:
    """Reads an array of strings that are not empty and have no control characters."""
    return checked(
        lambda v: isinstance(v, list) and all(isinstance(i, str) and i != "" and i.isprintable() for i in v),
        right,
        lambda v: tuple(map(str.lower, v)),
    )


def header_name() -> Reader:
    """Reads the name of an HTTP header (RFC 9110 5.1) that means nothing else."""
    taken = ("host", "cookie", "connection", "content-length", "content-type", "transfer-encoding", "idempotency-key")
    return checked(
        lambda v: isinstance(v, str) and re.fullmatch(r"[A-Za-z0-9-]{1,64}", v) is not None and v.lower() not in taken,
        'the name of a header of its own, such as "X-Push-Key"',
    )


def choice(*choices: str) -> Reader:
    """Reads one of the choices."""
    return checked(lambda v: isinstance(v, str) and v in choices, " or ".join(map(show, choices)))


def whole(least: int, most: int) -> Reader:
    """Reads a whole number in a range, both ends included."""
    return checked(lambda v: _is_whole(v) and least <= v <= most, f"a whole number from {least} to {most}")


def seconds(least: float, most: float) -> Reader:
    """Reads a number in a range, both ends included; whole numbers will do."""

    def is_right(value: Any) -> bool:
        return (_is_whole(value) or (isinstance(value, float) and math.isfinite(value))) and least <= value <= most

    return checked(is_right, f"a number of seconds from {least:g} to {most:g}", float)


def show(value: object) -> str:
    """A value of the file for a sentence: short, on one line, in TOML's words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN_CHARS:
        return "a number of very many digits"
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    text = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
    return f'"{text}"' if isinstance(value, str) else text


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_key(key: str) -> str:
    return key if key.isidentifier() else show(key)

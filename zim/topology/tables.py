"""TOML tables → typed values. Every problem is collected with its dotted key, so that one run shows all of them.

Pure; knows nothing of nodes. A getter gives None where there is no usable value: the problem is then already listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

_SHOWN_CHARS = 60


class Problems:
    """What is wrong so far, one sentence each, in the order found."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, key: str, sentence: str) -> None:
        """Notes a problem of that dotted key."""
        self.sentences.append(f"{key}: {sentence}")


class Table:
    """One table of the file, read key by key.

    Attributes:
        key: its dotted key, `comet[0]`; "" for the whole file.
    """

    def __init__(self, key: str, values: dict[str, Any], problems: Problems) -> None:
        self.key = key
        self.values = values
        self.problems = problems

    def path(self, key: str) -> str:
        """The dotted key of one of its keys."""
        return f"{self.key}.{key}" if self.key else key

    def add(self, key: str, sentence: str) -> None:
        """Notes a problem of one of its keys."""
        self.problems.add(self.path(key), sentence)

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

    def text(self, key: str, right: str) -> str | None:
        """A string that is not empty and has no control characters."""
        value: str | None = self._checked(key, lambda v: isinstance(v, str) and v != "" and v.isprintable(), right)
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        """One of the choices."""
        value = self.values.get(key)
        if isinstance(value, str) and value in choices:
            return value
        self.add(key, f"is {show(value)}; right is {' or '.join(show(c) for c in choices)}")
        return None

    def flag(self, key: str) -> bool | None:
        """true or false."""
        value: bool | None = self._checked(key, lambda v: isinstance(v, bool), "true or false")
        return value

    def whole(self, key: str, least: int, most: int) -> int | None:
        """A whole number in a range, both ends included."""
        right = f"a whole number from {least} to {most}"
        value: int | None = self._checked(key, lambda v: _is_whole(v) and least <= v <= most, right)
        return value

    def seconds(self, key: str, least: float, most: float) -> float | None:
        """A number in a range, both ends included; whole numbers will do."""

        def is_right(value: Any) -> bool:
            return (_is_whole(value) or (isinstance(value, float) and math.isfinite(value))) and least <= value <= most

        value: float | None = self._checked(key, is_right, f"a number of seconds from {least:g} to {most:g}")
        return None if value is None else float(value)

    def table(self, key: str, right: str) -> Table | None:
        """A table in it."""
        value = self._checked(key, lambda v: isinstance(v, dict), right)
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

    def _checked(self, key: str, is_right: Callable[[Any], bool], right: str) -> Any:
        value = self.values.get(key)
        if is_right(value):
            return value
        self.add(key, f"is {show(value)}; right is {right}")
        return None


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

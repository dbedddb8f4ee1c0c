"""Patterns of names, one grammar everywhere: room classes, what a token lets join and read, what an API key is for.

`*` is any text, `?` any character, `[ab]` one of these, `[!ab]` none of these. So `[*]` is the character `*` alone.
Upper and lower case differ. Source: Python's fnmatch. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from msgspec import Meta

from zim.fabric.limits import PATTERN_BYTES, PATTERNS
from zim.fabric.names import is_key

PATTERN = f"1 to {PATTERN_BYTES} bytes; * is any text, ? any character, [ab] one of these"

Patterns = Annotated[tuple[str, ...], Meta(max_length=PATTERNS)]
ANY: tuple[str, ...] = ("*",)


def is_pattern(text: object) -> bool:
    """Whether it may stand as a pattern."""
    return isinstance(text, str) and is_key(text)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is meant by one of them."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def matching(name: str, patterns: Sequence[str]) -> str:
    """The first of them that means the name; "" for none."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), "")

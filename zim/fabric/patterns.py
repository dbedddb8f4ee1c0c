"""Patterns of names, one grammar everywhere: room classes, what a token lets join and read, what an API key is for.

`*` is any text, `?` any character, `[ab]` one of these, `[!ab]` none of these. So `[*]` is the character `*` alone.
Upper and lower case differ. Source: Python's fnmatch. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Any

from msgspec import Meta

from zim.fabric.limits import PATTERN_BYTES, PATTERNS
from zim.fabric.names import is_key

PATTERN = f"1 to {PATTERN_BYTES} bytes; * is any text, ? any character, [ab] one of these"

Patterns = Annotated[tuple[str, ...], Meta(max_length=PATTERNS)]
ANY: tuple[str, ...] = ("*",)
COMPILED = 1_024  # patterns that are kept as regular expressions, each some kB; `news` and `chat-*` need none

_SPECIAL = re.compile(r"[*?\[]")


def is_pattern(text: object) -> bool:
    """Whether it may stand as a pattern."""
    return isinstance(text, str) and is_key(text)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is meant by one of them."""
    return any(_means(pattern, name) for pattern in patterns)


def matching(name: str, patterns: Sequence[str]) -> str:
    """The first of them that means the name; "" for none."""
    return next((pattern for pattern in patterns if _means(pattern, name)), "")


def first_unmatched(names: Sequence[str], patterns: Sequence[str]) -> str | None:
    """The first of very many names that none of the patterns means; None if all are meant."""
    plain = {one for one in patterns if _SPECIAL.search(one) is None}
    prefixes = _prefixes(patterns)
    others = [one for one in patterns if one not in plain and one[:-1] not in prefixes]
    found = (name for name in names if name not in plain and not name.startswith(prefixes))
    return next((name for name in found if not matches(name, others)), None)


def _prefixes(patterns: Sequence[str]) -> tuple[str, ...]:
    """Of those that end in `*`, and are plain before it, what stands there."""
    return tuple(one[:-1] for one in patterns if one.endswith("*") and _SPECIAL.search(one[:-1]) is None)


def covers(patterns: Sequence[str], pattern: str) -> bool:
    """Whether whatever a pattern means one of these means, too. Of one with `*`, `?` or `[` inside only itself is known
    to do so, or one of these that ends in `*` and begins it."""
    if _SPECIAL.search(pattern) is None:
        return matches(pattern, patterns)
    return pattern in patterns or pattern.startswith(_prefixes(patterns))


def _means(pattern: str, name: str) -> bool:
    special = _SPECIAL.search(pattern)
    if special is None:
        return name == pattern
    if special.start() == len(pattern) - 1 and special[0] == "*":
        return name.startswith(pattern[:-1])
    return _compiled(pattern)(name) is not None


@lru_cache(COMPILED)
def _compiled(pattern: str) -> Callable[[str], Any]:
    """fnmatch's own cache has 32,768 of them: with a pattern for each user they were 130 MB."""
    return re.compile(translate(pattern)).match

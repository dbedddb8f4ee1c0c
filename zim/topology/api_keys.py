"""API keys, as the topology says them: `[[api_key]]`. Pure. The key itself never stands there, only its hash."""

from __future__ import annotations

import re
from collections.abc import Mapping

from zim.fabric.limits import PATTERNS
from zim.fabric.names import is_name
from zim.fabric.patterns import ANY, PATTERN, is_pattern
from zim.fabric.principals import SCOPES, STREAM_SCOPES, ApiKey, Scope
from zim.topology.ceilings import PER_KEY
from zim.topology.tables import Reader, Table, checked, show

MOST_KEYS = 4  # at once: two during a rotation, and room for a mistake
API_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_IS_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID_RIGHT = 'a name of 1 to 64 letters, digits and ._-, such as "orders"'
_SHA256_RIGHT = f"what zim api-key make prints, 64 hexadecimal digits, or an array of at most {MOST_KEYS}"
_SCOPES_RIGHT = f'an array of {", ".join(SCOPES)}, or a table such as {{ push = ["u:*", "r:orders-*"] }}'


def read_api_key(table: Table) -> ApiKey | None:
    """One key, if it is right. Notes problems in the table."""
    required = {"id": _ID_RIGHT, "sha256": _SHA256_RIGHT, "scopes": _SCOPES_RIGHT}
    found = table.read(_API_KEY, required)
    return ApiKey(**found) if required.keys() <= found.keys() else None


def _hashes(table: Table, key: str) -> tuple[str, ...] | None:
    """What is wrong is not shown: it may be the key itself."""
    value = table.values[key]
    found = value if isinstance(value, list) else [value]
    if 0 < len(found) <= MOST_KEYS and all(isinstance(h, str) and _IS_SHA256.fullmatch(h) for h in found):
        return tuple(found)
    table.add(key, f"is no such hash; right is {_SHA256_RIGHT}")
    return None


def _scopes(table: Table, key: str) -> Mapping[Scope, tuple[str, ...]] | None:
    """`["push", "count"]` for all streams, or a table that names patterns of streams for each."""
    value = table.values[key]
    if isinstance(value, list) and value and all(isinstance(scope, str) for scope in value):
        value = {scope: ["*"] for scope in value}
        named = Table(table.key, {key: value}, table.problems)
    else:
        named = table
    inner = named.table(key, _SCOPES_RIGHT)
    if inner is None:
        return None
    if not inner.values:
        table.add(key, f"is empty; right is {_SCOPES_RIGHT}")
        return None
    before = len(table.problems)
    found: dict[Scope, tuple[str, ...]] = inner.read(dict.fromkeys(SCOPES, _STREAM_PATTERNS), {})  # type: ignore[assignment]
    for scope, patterns in found.items():
        if scope not in STREAM_SCOPES and patterns != ANY:
            inner.add(scope, f'is about no stream; right is {scope} = ["*"]')
        elif wrong := [pattern for pattern in patterns if not pattern.startswith(_BEGINS)]:
            one = wrong[0]
            inner.add(
                scope,
                f"{show(one)} means no stream; right is {show(f'u:{one}')} for users, {show(f'r:{one}')} for rooms",
            )
    return found if found and len(table.problems) == before else None


_BEGINS = ("u:", "r:", "*", "?", "[")  # a pattern that may mean a stream
_STREAM_PATTERNS = checked(
    lambda v: isinstance(v, list) and 0 < len(v) <= PATTERNS and all(map(is_pattern, v)),
    f'an array of patterns of streams, ["u:*", "r:orders-*"], ["*"] for all; a pattern has {PATTERN}',
    tuple,
)
_API_KEY: dict[str, Reader] = {
    "id": checked(lambda v: isinstance(v, str) and API_KEY_ID.fullmatch(v) is not None and is_name(v), _ID_RIGHT),
    "sha256": _hashes,
    "scopes": _scopes,
    **PER_KEY,
}

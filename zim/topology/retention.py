"""How long streams are kept, as the topology says it: `[retention]` and `[[room_class]]`. Pure."""

from __future__ import annotations

from dataclasses import replace

from zim.fabric.retention import DAY_S, Retention, RoomClass, Rule
from zim.topology.tables import Reader, Table, checked, seconds, text, whole

_EXAMPLE = "{ count = 1000, age_s = 86400 }"
_PATTERNS = 'an array of patterns, such as ["ticker-*"]'


def read(file: Table) -> Retention:
    """`[retention]` and `[[room_class]]` of a topology; both may be missing. Notes problems in the table."""
    right = f"a table with users, rooms, everybody, each such as {_EXAMPLE}"
    table = file.table("retention", right) if "retention" in file.values else None
    kinds = {} if table is None else table.read(dict.fromkeys(("users", "rooms", "everybody"), _read_rule), {})
    classes = [_room_class(each) for each in file.tables("room_class")] if "room_class" in file.values else []
    return Retention(**kinds, classes=tuple(found for found in classes if found is not None))


def _read_rule(table: Table, key: str) -> Rule | None:
    inner = table.table(key, f"a table, {_EXAMPLE}")
    default: Rule = getattr(Retention, key)
    return None if inner is None else replace(default, **inner.read(_RULE, {}))


def _room_class(table: Table) -> RoomClass | None:
    values = table.read(_ROOM_CLASS, {"name": '"ticker"', "rooms": _PATTERNS})
    name, rooms = values.pop("name", None), values.pop("rooms", None)
    return RoomClass(name, rooms, replace(Retention.rooms, **values)) if name and rooms else None


def _is_patterns(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(p, str) and p for p in value)


_RULE: dict[str, Reader] = {"count": whole(0, 1_000_000_000), "age_s": seconds(0, 3650 * DAY_S)}
_ROOM_CLASS = {
    "name": text('a name for people, such as "ticker"'),
    "rooms": checked(_is_patterns, _PATTERNS, tuple),
    **_RULE,
}

"""How long streams are kept, as the topology says it: `[retention]` and `[[room_class]]`. Pure."""

from __future__ import annotations

from zim.fabric.retention import DAY_S, Retention, RoomClass, Rule
from zim.topology.tables import Table, show

_MOST_COUNT = 1_000_000_000
_MOST_AGE_S = 3650 * DAY_S
_RULE = "{ count = 1000, age_s = 86400 }"


def read(whole: Table) -> Retention:
    """`[retention]` and `[[room_class]]` of a topology; both may be missing. Notes problems in the table."""
    kinds: dict[str, Rule] = {}
    if "retention" in whole.values:
        table = whole.table("retention", f"a table with users, rooms, everybody, each such as {_RULE}")
        if table is not None:
            names = ("users", "rooms", "everybody")
            table.refuse_unknown(names)
            for name in names:
                if name in table.values and (inner := table.table(name, f"a table, {_RULE}")) is not None:
                    inner.refuse_unknown(["count", "age_s"])
                    kinds[name] = _rule(inner, getattr(Retention, name))
    classes = [_room_class(table) for table in whole.tables("room_class")] if "room_class" in whole.values else []
    return Retention(**kinds, classes=tuple(c for c in classes if c is not None))


def _rule(table: Table, default: Rule) -> Rule:
    count = table.whole("count", 0, _MOST_COUNT) if "count" in table.values else default.count
    age_s = table.seconds("age_s", 0, _MOST_AGE_S) if "age_s" in table.values else default.age_s
    return Rule(default.count if count is None else count, default.age_s if age_s is None else age_s)


def _room_class(table: Table) -> RoomClass | None:
    table.refuse_unknown(["name", "rooms", "count", "age_s"])
    right = 'an array of patterns, such as ["ticker-*"]'
    name = table.text("name", 'a name for people, such as "ticker"') if table.require("name", '"ticker"') else None
    patterns = table.values.get("rooms")
    if not table.require("rooms", right):
        return None
    if not isinstance(patterns, list) or not patterns or not all(isinstance(p, str) and p for p in patterns):
        table.add("rooms", f"is {show(patterns)}; right is {right}")
        return None
    return None if name is None else RoomClass(name, tuple(patterns), _rule(table, Retention.rooms))

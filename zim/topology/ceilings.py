"""`[limits]`, and what an `[[api_key]]` may do instead of it. Pure."""

from __future__ import annotations

import math
from typing import Any

from zim.fabric.buckets import Rate
from zim.fabric.ceilings import NO_CEILINGS, Ceilings
from zim.fabric.limits import ROOMS
from zim.topology.tables import Reader, Table, show, whole

KEY = "limits"  # of the file
MOST = 1e12  # a typing error, not a limit
LEAST_BYTES = 4_096  # a comet reads as much at once

_RIGHT = "a table such as { per_s = 10, burst = 50 }"


def read_rate(least_burst: float = 1.0) -> Reader:
    """Reads `{ per_s = 10, burst = 50 }`. Without `burst` it is what comes in a second, and no less than may be.

    Args:
        least_burst: with less nothing would ever get through.
    """

    def read(table: Table, key: str) -> Rate | None:
        inner = table.table(key, _RIGHT)
        if inner is None:
            return None
        found = inner.read({"per_s": _number(0.001), "burst": _number(least_burst)}, {"per_s": "a number, such as 10"})
        if "per_s" not in found or len(found) < len(inner.values):
            return None
        return Rate(found["per_s"], found.get("burst", max(found["per_s"], least_burst)))

    return read


def _number(least: float) -> Reader:
    def read(table: Table, key: str) -> float | None:
        value = table.values[key]
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if is_number and least <= value <= MOST:
            return float(value)
        table.add(key, f"is {show(value)}; right is a number from {least:g} to {MOST:.0f}")
        return None

    return read


_READERS: dict[str, Reader] = {
    **{name: read_rate() for name in Ceilings.__dataclass_fields__},
    "bytes_per_connection": read_rate(LEAST_BYTES),
    "rooms_per_session": whole(1, ROOMS),
}
PER_KEY: dict[str, Reader] = {"pushes": read_rate(), "bytes": read_rate()}  # of an [[api_key]]


def read(file: Table) -> Ceilings:
    """All of it, as far as it is right. Notes problems in the table."""
    table = file.table(KEY, "a table with pushes_per_key = { per_s = 100, burst = 500 }, say") if _has(file) else None
    return NO_CEILINGS if table is None else Ceilings(**table.read(_READERS, {}))


def _has(file: Table) -> bool:
    return KEY in file.values


def check_together(file: Table, ceilings: Ceilings, api_keys: Any, max_body_bytes: int, logics: int) -> None:
    """Notes what each logic's part of a limit would never let through.

    Args:
        api_keys: ApiKeys, in the order of the file.
        logics: how many there are: each has its part, for they count without each other.
    """
    of_keys = [("api_key", i, key.pushes, key.bytes) for i, key in enumerate(api_keys)]
    for where, i, pushes, size in [(KEY, -1, ceilings.pushes_per_key, ceilings.bytes_per_key), *of_keys]:
        names = ("pushes_per_key", "bytes_per_key") if i < 0 else ("pushes", "bytes")
        at = where if i < 0 else f"{where}[{i}]"
        each = f", for each of {logics} logics has its part of it" if logics > 1 else ""
        if pushes is not None and pushes.burst < logics:
            file.add(f"{at}.{names[0]}.burst", f"is {pushes.burst:g}; right is at least {logics}{each}")
        if size is not None and size.burst < max_body_bytes * logics:
            least = max_body_bytes * logics
            why = f"a push may have max_body_bytes, {max_body_bytes}{each}"
            file.add(f"{at}.{names[1]}.burst", f"is {size.burst:.0f}; right is at least {least}: {why}")

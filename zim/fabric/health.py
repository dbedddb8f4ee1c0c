"""How a node fares: can it do its work? Pure.

A node that can do a part of its work is ready. With one router away all logics miss it, and whoever takes all of them
out of service for that loses the rest, too.
"""

from __future__ import annotations

from typing import NamedTuple


class Health(NamedTuple):
    """Of a node.

    Attributes:
        is_ready: it can do its work, or a part of it.
        missing: what it waits for, each in words.
    """

    is_ready: bool = True
    missing: tuple[str, ...] = ()

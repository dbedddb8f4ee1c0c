"""What a node is told while it runs, by `zim up` on stdin: JSON objects, one a line. What it says of them stands on
stdout, beside its ready line: `draining comet-1 {…}`, `status comet-1 {…}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gevent import os as green_os

MAX_LINE_BYTES = 65_536
READ_BYTES = 65_536


def parse_order(line: bytes) -> dict[str, Any]:
    """An order, `{"do": "drain", …}`; nothing if it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("do"), str) else {}


def read_orders(fd: int) -> Iterator[dict[str, Any]]:
    """All that come, until the other end is closed. Switches: to wait."""
    green_os.make_nonblocking(fd)
    line = bytearray()
    while data := green_os.nb_read(fd, READ_BYTES):
        line += data
        *whole, rest = line.split(b"\n")
        line = bytearray(rest)
        yield from (order for text in whole if (order := parse_order(bytes(text))))
        if len(line) > MAX_LINE_BYTES:
            line.clear()  # whoever it is, it is not zim up

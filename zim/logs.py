"""Logging: a constant event and fields, one line each, on stderr.

`log.warning("slow consumer", extra={"uid": "7"})` becomes
`2026-11-24 07:34:09.123 comet-1 WARNING slow consumer uid=7`.
"""

import logging
import sys

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """Appends the fields given as `extra`, so that an event's text stays constant and can be counted."""

    def __init__(self, node_name: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d {node_name} %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One line: the time, the node, the event, its fields."""
        text = super().format(record)
        fields = [f"{k}={v}" for k, v in vars(record).items() if k not in _STANDARD]
        head, newline, tail = text.partition("\n")
        return " ".join([head, *fields]) + newline + tail


def setup(node_name: str, level: int = logging.INFO) -> None:
    """Sends everything to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter(node_name))
    logging.basicConfig(level=level, handlers=[handler], force=True)

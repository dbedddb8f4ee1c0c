"""Every connection is an open file: how many this process and its children may have, and whether that is enough."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Iterable
from typing import NamedTuple

from zim.supervisor.restarts import FILES_BESIDE_CONNECTIONS, open_file_limits, open_files_needed
from zim.topology import Node

log = logging.getLogger(__name__)

LITTLE_ROOM = 1_000  # clients


class Shortage(NamedTuple):
    """The system lets fewer clients in than a comet may take.

    Attributes:
        room: for so many clients.
        needed: open files for all.
    """

    room: int
    needed: int
    node: str

    @property
    def is_bad(self) -> bool:
        """It is so little that it will be missed soon."""
        return self.room < LITTLE_ROOM

    def tell(self) -> None:
        """One line in the log."""
        remedy = f"`ulimit -Hn {self.needed}` as root, or LimitNOFILE={self.needed} under systemd"
        if self.is_bad:
            fields = {"room_for": self.room, "node": self.node, "remedy": f"{remedy}, or a lower max_connections"}
            log.warning("fewer clients than max_connections, for too few open files", extra=fields)
        else:
            fields = {"clients": self.room, "node": self.node, "for_max_connections": remedy}
            log.info("open files are enough for so many clients", extra=fields)


def raise_open_files(nodes: Iterable[Node]) -> Shortage | None:
    """Raises the limit of open files as far as it may, for this process and its children.

    Returns:
        What is missing, if that is less than the largest comet's `max_connections` needs.
    """
    needed, name = open_files_needed(nodes)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in open_file_limits(hard, needed, resource.RLIM_INFINITY):
        if soft == resource.RLIM_INFINITY or wanted[0] < soft:
            break
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, wanted)
            soft = wanted[0]
            break
    if soft != resource.RLIM_INFINITY and soft < needed:
        return Shortage(max(0, soft - FILES_BESIDE_CONNECTIONS), needed, name)
    return None

"""How much memory this process has, read now and then: never for a connection."""

from __future__ import annotations

import logging
import resource

import gevent

from zim.nodes.comet.doorkeeper import Doorkeeper

log = logging.getLogger(__name__)

LOOK_S = 0.25  # between two looks: a connection takes some kB, so 10,000 new ones a second some 10 MB
STATM = "/proc/self/statm"


def resident_bytes() -> int | None:
    """What is in memory of this process; None where the system does not tell."""
    try:
        with open(STATM, "rb") as file:  # proc(5): never waits
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None


class MemoryWatch:
    """Tells a Doorkeeper.

    Attributes:
        used_bytes: as it was seen last; 0 while nobody looks.
    """

    def __init__(self, doorkeeper: Doorkeeper) -> None:
        self._doorkeeper = doorkeeper
        self.used_bytes = 0

    def run(self) -> None:
        """Looks again and again, while there is a ceiling. Switches; runs for ever."""
        while True:
            gevent.sleep(LOOK_S)
            if self._doorkeeper.max_memory_bytes:
                self.look()

    def look(self) -> None:
        """Looks once, and says in the log what has changed."""
        found = resident_bytes()
        if found is None:
            log.error("this system does not say how much memory there is: max_memory_bytes is not looked at")
            self._doorkeeper.max_memory_bytes = 0
            return
        self.used_bytes = found
        if self._doorkeeper.see_memory(found):
            fields = {"used_bytes": found, "max_memory_bytes": self._doorkeeper.max_memory_bytes}
            if self._doorkeeper.is_over:
                log.error("more memory than max_memory_bytes: nobody new comes in", extra=fields)
            else:
                log.warning("memory is below max_memory_bytes again", extra=fields)

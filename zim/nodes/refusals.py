"""What limits have refused, in lines of the log: one a second for each limit, however much it was."""

from __future__ import annotations

import logging

import gevent

from zim.fabric.refusals import Refusals

log = logging.getLogger(__name__)

EVERY_S = 1.0


def tell_for_ever(*refusals: Refusals) -> None:
    """Writes them. Switches; runs for ever."""
    while True:
        gevent.sleep(EVERY_S)
        for found in [found for each in refusals for found in each.news()]:
            fields = {"limit": found.limit, "times": found.times, "last": found.last}
            log.warning("more than a limit allows", extra=fields)

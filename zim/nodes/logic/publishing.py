"""Pushes on their way from a publisher to the routers. Second stop of a push: one Publish per router goes out.

It talks; zim.nodes.logic.shares decides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import gevent

from zim.errors import Unavailable
from zim.fabric.push import Published, Push
from zim.fabric.sharding import Shards
from zim.net.links import Asker, NotSent
from zim.nodes.logic.shares import Share, published, split
from zim.protocol import messages

log = logging.getLogger(__name__)

ANSWER_S = 2.0  # for one attempt; a router makes a publisher wait at most one second for a comet that is behind
GIVE_UP_S = 5.0  # over all attempts, and for a router that is away
RETRY_S = 0.02
TOGETHER = 1_000  # of one publisher's pushes under way to one router

RouterAsker = Asker[messages.ToAsker]


class Publisher:
    """Publishes for one logic node."""

    def __init__(self, routers: Mapping[str, RouterAsker]) -> None:
        self._routers = routers
        self._shards = Shards(list(routers))
        self._terms = dict.fromkeys(routers, 0)

    def publish_many(self, pushes: Sequence[Push]) -> list[Published]:
        """See zim.fabric.port.Fabric. Switches."""
        shares = [split(push, self._shards) for push in pushes]
        by_router: dict[str, list[Share]] = {}
        for mine in shares:
            for share in mine:
                by_router.setdefault(share.router, []).append(share)
        if len(by_router) == 1:
            ((router, all_of_it),) = by_router.items()
            self._publish_at(router, all_of_it)
        else:
            jobs = [gevent.spawn(self._publish_at, router, at) for router, at in by_router.items()]
            gevent.joinall(jobs, raise_error=True)
        return [published(mine) for mine in shares]

    def _publish_at(self, router: str, shares: list[Share]) -> None:
        for start in range(0, len(shares), TOGETHER):
            self._publish_together(router, shares[start : start + TOGETHER])

    def _publish_together(self, router: str, shares: list[Share]) -> None:
        asker, until = self._routers[router], time.monotonic() + GIVE_UP_S
        for share in shares:
            share.term = self._terms[router]
        while shares and time.monotonic() < until:
            asked = asker.ask_all([(share.message, share.size) for share in shares], ANSWER_S)
            for share, answer in zip(shares, asked, strict=True):
                if isinstance(answer, messages.PublishReply):
                    self._terms[router] = answer.term
                    share.answered(answer)
                    if answer.status == "refused":
                        log.error("a router refuses a stream: the topologies differ", extra={"router": router})
                elif isinstance(answer, Unavailable) and not isinstance(answer, NotSent):
                    share.not_answered(str(answer))
            shares = [share for share in shares if not share.is_over]
            if shares:
                gevent.sleep(RETRY_S)
        for share in shares:
            share.give_up(f"{router} is away")

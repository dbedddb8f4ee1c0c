"""What the HTTP API asks of the fabric. Second stop of a push: a request comes in, one Publish per router goes out.

Logic keeps nothing. One answer is given, and it is honest: ok means stored, unavailable means surely not stored.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import gevent

from zim.errors import Unavailable
from zim.nodes.links import Asker, NotSent
from zim.protocol import messages
from zim.protocol.frame import Op
from zim.sharding import Shards
from zim.web.fabric import Counts, Published

log = logging.getLogger(__name__)

ANSWER_S = 2.0  # for one attempt; a router makes a publisher wait at most one second for a comet that is behind
ATTEMPTS = 3
GIVE_UP_S = 5.0  # for a push, over all attempts, and for a router that is away
RETRY_S = 0.02

T = TypeVar("T")
RouterAsker = Asker[messages.ToAsker]


class RouterFabric:
    """The fabric as one logic node sees it: a link to every router. See zim.web.fabric.Fabric."""

    def __init__(self, routers: dict[str, RouterAsker]) -> None:
        self._routers = routers
        self._shards = Shards(list(routers))
        self._terms = dict.fromkeys(routers, 0)

    def publish(self, streams: Sequence[str], body: bytes, op: int = Op.PUSH) -> Published:
        """See zim.web.fabric.Fabric. Switches."""
        push_id = secrets.token_hex(16)
        by_router: dict[str, list[str]] = {}
        for stream in streams:
            by_router.setdefault(self._shards.owner(stream), []).append(stream)
        statuses = set(
            self._at_each(by_router, lambda router: self._publish_at(router, push_id, by_router[router], op, body))
        )
        if not statuses or statuses == {"ok"}:
            return Published(push_id, "ok")
        if statuses == {"unavailable"}:
            return Published(push_id, "unavailable")
        return Published(push_id, "unknown")  # in part stored, or it cannot be told

    def _publish_at(self, router: str, push_id: str, streams: list[str], op: int, body: bytes) -> str:
        """One shard's part. An attempt without an answer may be stored: from then on no 503 is honest."""
        asker, term = self._routers[router], self._terms[router]
        attempt, until, may_be_stored = 1, time.monotonic() + GIVE_UP_S, False
        size = len(body) + 64 * len(streams)
        while attempt <= ATTEMPTS and time.monotonic() < until:
            try:
                answer = asker.ask(
                    lambda req: messages.Publish(req, push_id, streams, op, body, attempt, term),  # noqa: B023
                    ANSWER_S,
                    size,
                )
            except NotSent:
                gevent.sleep(RETRY_S)
                continue
            except Unavailable:
                attempt, may_be_stored = attempt + 1, True
                continue
            assert isinstance(answer, messages.Published)
            self._terms[router] = answer.term
            if answer.status == "refused":
                log.error(
                    "a router refuses a stream: the topologies differ", extra={"router": router, "stream": streams[0]}
                )
                return "unknown" if may_be_stored else "unavailable"
            if answer.status == "unavailable" and may_be_stored:
                return "unknown"
            return answer.status
        return "unknown" if may_be_stored else "unavailable"

    def counts(self) -> Counts:
        """See zim.web.fabric.Fabric. Switches."""
        rooms: dict[str, int] = {}
        comets: dict[int, int] = {}
        roomless = 0
        for counted in self._ask_all(messages.Count):
            assert isinstance(counted, messages.Counted)
            for room, n in counted.rooms.items():
                rooms[room] = rooms.get(room, 0) + n
            for comet, n in counted.comets.items():
                comet_id = int(comet.rpartition("-")[2])
                comets[comet_id] = comets.get(comet_id, 0) + n
            roomless += counted.roomless
        return Counts(rooms, comets, roomless)

    def forget(self, comet_id: int) -> None:
        """See zim.web.fabric.Fabric. Switches."""
        self._ask_all(lambda req: messages.Forget(req, f"comet-{comet_id}"))

    def _ask_all(self, make: Callable[[int], messages.Message]) -> list[messages.ToAsker]:
        return self._at_each(self._routers, lambda router: self._ask(router, make))

    def _ask(self, router: str, make: Callable[[int], messages.Message]) -> messages.ToAsker:
        until = time.monotonic() + GIVE_UP_S
        while True:
            try:
                return self._routers[router].ask(make, max(0.0, until - time.monotonic()))
            except NotSent:
                if time.monotonic() > until:
                    raise
                gevent.sleep(RETRY_S)

    def _at_each(self, routers: Iterable[str], do: Callable[[str], T]) -> list[T]:
        names = list(routers)
        if len(names) == 1:
            return [do(names[0])]
        found: list[T] = []
        errors: list[Unavailable] = []

        def run(name: str) -> None:
            try:
                found.append(do(name))
            except Unavailable as e:
                errors.append(e)  # for the caller: gevent would print it

        gevent.joinall([gevent.spawn(run, name) for name in names], raise_error=True)
        if errors:
            raise errors[0]
        return found

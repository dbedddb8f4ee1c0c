"""What the HTTP API asks of the fabric, as one logic node sees it: a link to every router. Logic keeps nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

import gevent
from gevent.event import AsyncResult

from zim.errors import Unavailable
from zim.fabric.sharding import Shards
from zim.fabric.streams import user_stream
from zim.nodes.effects import Effect
from zim.nodes.logic.runner import LogicRunner
from zim.nodes.logic.shares import GIVE_UP_S
from zim.protocol import messages
from zim.web.fabric import OUTCOMES, Counts, History, Kept, Published, Push, Receipt, Totals, Unread

SILENT_S = 1.0  # after it a router that does not say what it knows is named
WAIT_S, MOST_WAIT_S = 0.03, 0.5  # between two looks at a receipt: longer and longer
HISTORY_BYTES = 4 << 20  # an answer ends with the page that gets there; who asks goes on after its last message
ALL = (1 << 63) - 1  # an offset above all


class RouterFabric:
    """See zim.web.fabric.Fabric. Each call hands its request to the runner, and waits until it is settled."""

    def __init__(
        self, routers: Sequence[str], runner: LogicRunner, perform: Callable[[Iterable[Effect]], None]
    ) -> None:
        """
        Args:
            routers: names of all routers.
            perform: does what the runner returns.
        """
        self._routers, self._runner, self._perform = routers, runner, perform
        self._shards = Shards(routers)

    def publish(self, push: Push) -> Published:
        """See Fabric. Switches."""
        return self.publish_many([push])[0]

    def publish_many(self, pushes: Sequence[Push]) -> Sequence[Published]:
        """See Fabric. Switches."""
        ticket: AsyncResult[Any] = AsyncResult()
        self._perform(self._runner.on_push(ticket, pushes, time.monotonic()))
        return cast(Sequence[Published], ticket.get())

    def counts(self) -> Counts:
        """See Fabric. Switches."""
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
        """See Fabric. Switches."""
        self._ask_all(lambda req: messages.Forget(req, f"comet-{comet_id}"))

    def history(self, stream: str, after: int, limit: int) -> History:
        """See Fabric. Switches: once for each page that the router answers."""
        found: list[Kept] = []
        size = 0
        while True:
            at, left = after, limit - len(found)
            m = self._ask_owner(stream, lambda req: messages.Read(req, stream, at, ALL, left))  # noqa: B023
            assert isinstance(m, messages.Records)
            found += [Kept(r.offset, r.time_ms, r.op, r.body) for r in m.records]
            after = max(m.last, after)
            size += sum(len(r.body) for r in m.records)
            if len(found) >= limit or size >= HISTORY_BYTES or after >= m.head:
                return History(stream, m.epoch, m.floor + 1, m.head, found)

    def unread(self, uid: str) -> Unread:
        """See Fabric. Switches."""
        stream = user_stream(uid)
        m = self._ask_owner(stream, lambda req: messages.Unread(req, stream))
        assert isinstance(m, messages.Unreads)
        return Unread(m.head - max(m.floor, min(m.acknowledged, m.head)), m.acknowledged, m.head, m.epoch)

    def receipt(self, push_id: str, wait_s: float = 0.0) -> Receipt:
        """See Fabric. Switches."""
        until, pause_s = time.monotonic() + wait_s, WAIT_S
        while True:
            found = self._receipt(push_id)
            if not found.pending or time.monotonic() > until:
                return found
            gevent.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_WAIT_S)

    def _receipt(self, push_id: str) -> Receipt:
        answers = self._ask_each(lambda req: messages.Track(req, push_id))
        tracked = [m for m in answers.values() if isinstance(m, messages.Tracked)]
        known = [m for m in tracked if m.is_known]
        outcomes = {name: sum(getattr(m, name) for m in known) for name in OUTCOMES}
        targeted = sum(m.targeted for m in known)
        offline = sum(m.offline for m in known)
        pending = targeted - sum(outcomes.values())
        hops: dict[str, float] = {}
        if known:
            hops["kept"] = max(m.kept_ms - m.accepted_ms for m in known)
            if reported := [m.reported_ms - m.kept_ms for m in known if m.reported_ms]:
                hops["reported"] = max(reported)
        silent = [router for router, m in answers.items() if m is None]
        forgotten = [m.router for m in known if m.is_forgotten]
        return Receipt(
            push_id,
            targeted,
            **outcomes,
            pending=pending,
            offline=offline,
            is_known=bool(known),
            hops_ms=hops,
            silent=silent,
            forgotten=forgotten,
        )

    def totals(self) -> Totals:
        """See Fabric. Switches."""
        answers = self._ask_each(messages.Total)
        told = [m for m in answers.values() if isinstance(m, messages.Totalled)]
        names = [f.name for f in fields(Totals) if f.name != "silent"]
        sums = {name: sum(getattr(m, name) for m in told) for name in names}
        return Totals(**sums, silent=[router for router, m in answers.items() if m is None])

    def _ask_owner(self, stream: str, make: Callable[[int], messages.Message]) -> messages.ToAsker:
        (answer,) = self._answers([self._shards.owner(stream)], make)
        return answer

    def _ask_all(self, make: Callable[[int], messages.Message]) -> list[messages.ToAsker]:
        return self._answers(self._routers, make)

    def _ask_each(self, make: Callable[[int], messages.Message]) -> dict[str, messages.ToAsker | None]:
        """Every router's answer; nothing from those that do not give one soon."""
        found = self._ask(self._routers, make, SILENT_S)
        return {router: None if isinstance(m, Unavailable) else m for router, m in found.items()}

    def _answers(self, routers: Sequence[str], make: Callable[[int], messages.Message]) -> list[messages.ToAsker]:
        """
        Raises:
            Unavailable: one of them did not answer.
        """
        answers = []
        for m in self._ask(routers, make, GIVE_UP_S).values():
            if isinstance(m, Unavailable):
                raise m
            answers.append(m)
        return answers

    def _ask(
        self, routers: Sequence[str], make: Callable[[int], messages.Message], patience_s: float
    ) -> Mapping[str, messages.ToAsker | Unavailable]:
        ticket: AsyncResult[Any] = AsyncResult()
        self._perform(self._runner.on_question(ticket, routers, make, patience_s, time.monotonic()))
        return cast(Mapping[str, messages.ToAsker | Unavailable], ticket.get())

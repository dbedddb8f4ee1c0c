"""A comet that is being drained: whom it sends away when, and to which comet; when it may end. Pure.

Its listeners are closed, so nobody new comes but who was on the way in. Clients go at a pace, those who are open; then
it stays until its routers have heard that they are gone, and what became of all that was for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from zim.nodes.comet.effects import SendOn
from zim.nodes.comet.feed import Link
from zim.nodes.comet.hub import Hub
from zim.nodes.effects import WARNING, Drained, Effect, Note

BURST_S = 0.25  # of the pace at most at once, after a standstill
SETTLE_S = 3.0  # for routers to hear the rest, from the last client on; one may be away


@dataclass(frozen=True)
class DrainPlan:
    """How a comet is drained.

    Attributes:
        per_s: clients that are sent away in a second.
        shares: where to: of so many clients, by the comet's name; without any each goes where it likes.
    """

    per_s: float
    shares: Mapping[str, float] = field(default_factory=dict)


class LastWords:
    """What one router must hear before the comet may end.

    It has applied that all sessions are gone; the next answer to a Renew says up to where it had made entries for them;
    of these it knows what became of them.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._registration = self._link.registrations
        self._after = -1  # the Renew whose answer does not count yet; -1 while changes are not answered
        self._upto = -1  # the last entry that may have been for a session that was here

    def is_heard(self) -> bool:
        """It has heard all."""
        link = self._link
        if link.registrations != self._registration:
            self._begin_anew()
        if not link.term:
            return True  # it knows of nobody here
        if link.is_registering or not link.is_told:
            return False
        if self._after < 0:
            self._after = link.asked
        if self._upto < 0:
            if link.heard <= self._after:
                link.hurry()
                return False
            self._upto = link.made
        return link.is_settled(self._upto)


class Draining:
    """One drain of a comet, from its beginning on.

    Attributes:
        sent: how many clients were sent away.
        is_over: Drained has been said.
    """

    def __init__(self, plan: DrainPlan, now: float) -> None:
        """now: monotonic seconds, as everywhere here."""
        self.plan = plan
        self.sent = 0
        self.is_over = False
        self._at, self._credit = now, 0.0
        self._given: dict[str, int] = {comet: 0 for comet, share in plan.shares.items() if share > 0}
        self._last: list[tuple[str, LastWords]] = []  # by shard, once the last client has left
        self._until = 0.0

    def step(self, hub: Hub, now: float) -> list[Effect]:
        """What is due: clients to be sent on; in the end Drained, once."""
        if self.is_over:
            return []
        if hub.sessions:
            self._last = []
            return list(self._send_on(hub, now))
        if not self._last:
            self._last, self._until = [(shard, LastWords(link)) for shard, link in hub.links.items()], now + SETTLE_S
        late = [shard for shard, last in self._last if not last.is_heard()]
        if late and now < self._until:
            return []
        self.is_over = True
        notes = [Note(WARNING, "drained, and not all is reported", {"shards": ",".join(late)})] if late else []
        return [*notes, Drained()]

    def _send_on(self, hub: Hub, now: float) -> Iterator[Effect]:
        per_s = self.plan.per_s
        self._credit = min(self._credit + (now - self._at) * per_s, max(1.0, per_s * BURST_S))
        self._at = now
        due = int(self._credit)
        # Who is not open yet is waited for: its auth reply is on its way.
        ready = islice((session for session in hub.sessions.values() if session.is_open), due)
        for n, session in enumerate(ready):
            self._credit -= 1
            self.sent += 1
            yield SendOn(session, self._destination(), n / per_s)

    def _destination(self) -> str:
        """The comet that is furthest below its share."""
        given, shares = self._given, self.plan.shares
        if not given:
            return ""
        comet = min(given, key=lambda name: (given[name] + 1) / shares[name])
        given[comet] += 1
        return comet

"""A comet's runner: what comes from routers, jobs and logics, from clients, and from the clock. Fifth stop of a push.

In: an Entry. Out: a Pass over the sockets of those who are subscribed. `hub` decides that, and what routers are told;
here is what a comet asks of logics: who a client is, which rooms it may be in. Pure: no socket, no clock; the simulator
runs it as it ships.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from typing_extensions import override

from zim.fabric.limits import CHANGES
from zim.nodes.calls import Call, Calls
from zim.nodes.comet.draining import Draining, DrainPlan
from zim.nodes.comet.effects import Told
from zim.nodes.comet.hub import Hub
from zim.nodes.effects import INFO, MESSAGE_BYTES, WARNING, Effect, Note
from zim.nodes.placement import Placement
from zim.protocol.logins import AskJoin, Auth, Authed, MayJoin
from zim.protocol.message import Message
from zim.protocol.messages import Entry, ToComet
from zim.protocol.publication import ITEM_BYTES

ANSWER_S = 1.0  # for one logic to answer, before the next one is asked
PAUSE_S = 0.05  # after all of them have been asked


class _Enquiry(Call):
    """One logic after the other is asked until one answers, or the time is up."""

    __slots__ = ("_answer_s", "_asked", "_first", "_logics", "_question", "_until", "found", "ticket")

    def __init__(
        self,
        ticket: Any,
        question: Auth | AskJoin,
        logics: Sequence[str],
        first: int,
        until: float,
        answer_s: float,
    ) -> None:
        super().__init__()
        self.ticket = ticket
        self._question, self._logics, self._first, self._until = question, logics, first, until
        self._answer_s = answer_s
        self._asked = 0
        self.found: Authed | MayJoin | None = None

    @override
    def attempt(self, req: int, now: float) -> tuple[str, Message, int, float]:
        logic = self._logics[(self._first + self._asked) % len(self._logics)]
        self._asked += 1
        return logic, msgspec.structs.replace(self._question, req=req), _size(self._question), now + self._answer_s

    @override
    def on_answer(self, m: Authed | MayJoin, now: float) -> None:
        self.found, self.is_over = m, True

    @override
    def on_silence(self, why: str, now: float) -> None:
        self.on_not_sent(now)

    @override
    def on_not_sent(self, now: float) -> None:
        self.is_over = now > self._until
        self.again_at = now if self._asked % len(self._logics) else now + PAUSE_S


class CometRunner:
    """One run of a comet.

    Attributes:
        hub: who is subscribed to what.
        draining: under way; None for a comet that stays.
    """

    def __init__(
        self,
        comet: str,
        inc: int,
        placement: Placement,
        logics: Sequence[str],
        renew_bytes: int,
        handshake_timeout_s: float,
        first_logic: int = 0,
        most_changes: int = CHANGES,
        answer_s: float = ANSWER_S,
    ) -> None:
        """
        Args:
            comet, inc: this comet's name and its incarnation.
            placement: of all shards.
            logics: names of all of them.
            renew_bytes: of handled entries, at which a Renew is due at once.
            handshake_timeout_s: how long logics are asked who a client is.
            first_logic: which of them is asked first; then each in turn.
            most_changes: see Link.
            answer_s: for one logic to answer, before the next one is asked.
        """
        self.hub = Hub(comet, inc, placement, most_changes)
        self._next_logic = first_logic
        self.handshake_timeout_s, self.answer_s = handshake_timeout_s, answer_s
        self._logics, self._renew_bytes = logics, renew_bytes
        self._calls = Calls()
        self.draining: Draining | None = None

    def know(self, routers: Sequence[str], logics: Sequence[str], renew_bytes: int) -> None:
        """All of a topology that has changed: those of before, and perhaps more."""
        self.hub.links.placement.know(routers)
        self._logics, self._renew_bytes = logics, renew_bytes

    # -- routers and jobs

    def on_messages(self, came: Sequence[ToComet | Entry], now: float) -> list[Effect]:
        """Routers answer, jobs bring entries."""
        on_message = self.hub.on_message
        return [effect for m in came for effect in on_message(m, now)]

    def on_link(self, router: str, is_connected: bool) -> None:
        """A router is there, or is not any more."""
        self.hub.links.on_link(router, is_connected)

    # -- logics

    def on_question(self, ticket: Any, question: Auth | AskJoin, now: float) -> list[Effect]:
        """A client shows its token, or wants to be in rooms of which its grant says that logic is to be asked. Told
        comes when it is answered, or when nobody can tell.

        Args:
            question: with any number.
        """
        self._next_logic += 1
        until = now + self.handshake_timeout_s
        call = _Enquiry(ticket, question, self._logics, self._next_logic, until, self.answer_s)
        return self._calls.begin(call, now)

    def on_told(self, answers: Sequence[Authed | MayJoin], now: float) -> list[Effect]:
        """A logic has answered."""
        return _ended([self._calls.on_answer(m, now) for m in answers])

    def on_not_sent(self, reqs: Sequence[int], now: float) -> list[Effect]:
        """Questions to a logic that never left."""
        return _ended([self._calls.on_not_sent(req, now) for req in reqs])

    def on_logic_gone(self, logic: str, now: float) -> list[Effect]:
        """The link to a logic has broken."""
        return _ended(self._calls.on_gone(logic, now))

    # -- time

    def on_tick(self, now: float) -> list[Effect]:
        """Forty times a second: what is to be repeated, fetched, renewed, asked again."""
        due, silent = self._calls.on_tick(now)
        found = self.hub.on_tick(now, self._renew_bytes) + due + _ended(silent)
        return found if self.draining is None else found + self.draining.step(self.hub, now)

    # -- the end

    def drain(self, plan: DrainPlan, now: float) -> list[Effect]:
        """It is to send its clients to others, and to end: `on_tick` does it, and returns Drained in the end. Asked
        again it goes on by the new plan."""
        again, self.draining = self.draining, Draining(plan, now)
        if again is not None:
            self.draining.sent, self.draining.is_over = again.sent, again.is_over
        return [Note(INFO, "draining", {"sessions": len(self.hub.sessions), "per_s": plan.per_s})]


def _size(question: Auth | AskJoin) -> int:
    """What it counts for in every limit."""
    if isinstance(question, Auth):
        return MESSAGE_BYTES + len(question.token) + len(question.address) + len(question.device)
    return MESSAGE_BYTES + sum(ITEM_BYTES + len(room) for room in question.rooms)


def _ended(calls: Sequence[Call | None]) -> list[Effect]:
    out: list[Effect] = []
    for call in calls:
        if isinstance(call, _Enquiry) and call.is_over:
            if call.found is None:
                out.append(Note(WARNING, "nobody to authenticate with", {}))
            out.append(Told(call.ticket, call.found))
    return out

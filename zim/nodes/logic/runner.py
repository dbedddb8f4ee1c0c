"""Logic's runner: what becomes of pushes and questions on their way to the routers, and of requests by ZeroMQ.

Second stop of a push. In: a Push of a backend. Out: a Publish to each router that owns one of its streams, and in the
end one honest answer. `shares` decides what is honest, `zim.nodes.calls` keeps the attempts. Pure: no socket, no clock;
the simulator runs it as it ships.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

from typing_extensions import override

from zim.errors import Unavailable, Unknown
from zim.fabric.push import Push, Status
from zim.fabric.sharding import Shards
from zim.nodes.calls import RETRY_S, Call, Calls
from zim.nodes.effects import ERROR, MESSAGE_BYTES, Effect, Note, Replies
from zim.nodes.logic.auth import GoimTokens
from zim.nodes.logic.shares import Share, published, push_id_of, split
from zim.nodes.logic.submitting import answer_submits, read_submit
from zim.protocol import messages
from zim.protocol.messages import ENTRY_BYTES, ITEM_BYTES, Message, Submit

SUBMITTED_BYTES = 64 << 20  # of pushes over ZeroMQ that are under way


class Settled(Effect, frozen=True):
    """What somebody waits for has come to its end.

    Attributes:
        ticket: names it, as it was handed to the runner.
        outcome: of pushes, a Published for each; of questions, by router its answer, or why there is none.
    """

    ticket: Any
    outcome: Any


class _Submission(NamedTuple):
    """Pushes of a publisher over ZeroMQ. problems: of each, "" if it is right."""

    asker: Any
    submits: Sequence[Submit]
    problems: Sequence[str]
    size: int


class _Group:
    """Calls that are answered together.

    Attributes:
        ticket: whose.
        missing: how many are not over.
        outcome: what they came to, in their order.
    """

    __slots__ = ("missing", "outcome", "ticket")

    def __init__(self, ticket: Any, missing: int, outcome: Callable[[], Any]) -> None:
        self.ticket, self.missing, self.outcome = ticket, missing, outcome


class _Inquiry(Call):
    """A question to one router. found: its answer, or why there is none."""

    __slots__ = ("_give_up_at", "_make", "_retry_until", "found", "router")

    def __init__(self, router: str, make: Callable[[int], Message], give_up_at: float, retry_until: float) -> None:
        super().__init__()
        self.router, self._make, self._give_up_at, self._retry_until = router, make, give_up_at, retry_until
        self.found: Message | Unavailable | Unknown = Unavailable(router, "away")

    @override
    def attempt(self, req: int, now: float) -> tuple[str, Message, int, float]:
        return self.router, self._make(req), MESSAGE_BYTES, self._give_up_at

    @override
    def on_answer(self, m: Message, now: float) -> None:
        self.found, self.is_over = m, True

    @override
    def on_silence(self, why: str, now: float) -> None:
        """It is not asked again: whoever wants to may do that."""
        self.found, self.is_over = Unknown(self.router, why), True

    @override
    def on_not_sent(self, now: float) -> None:
        self.again_at, self.is_over = now + RETRY_S, now >= self._retry_until


class LogicRunner:
    """One logic node.

    Attributes:
        answered: how many pushes were answered, by status.
        identified: how many tokens comets asked about.
        waiting_bytes: of pushes over ZeroMQ that are under way.
        dropped: how many of them were too many.
    """

    def __init__(
        self, routers: Sequence[str], tokens: GoimTokens, max_body_bytes: int, new_id: Callable[[], str]
    ) -> None:
        """
        Args:
            routers: names of all routers.
            new_id: an id for a push without a key; nobody may have had it.
        """
        self.answered: dict[str, int] = dict.fromkeys(get_args(Status), 0)
        self.identified = self.waiting_bytes = self.dropped = 0
        self._tokens, self._max_body_bytes, self._new_id = tokens, max_body_bytes, new_id
        self._shards = Shards(routers)
        self._terms = dict.fromkeys(routers, 0)
        self._calls = Calls()

    # -- requests

    def on_push(self, ticket: Any, pushes: Sequence[Push], now: float) -> list[Effect]:
        """A backend's pushes."""
        shares = [
            split(push, push_id_of(push.key) if push.key else self._new_id(), self._shards, self._terms, now)
            for push in pushes
        ]
        flat = [share for mine in shares for share in mine]
        return self._begin(ticket, flat, lambda: [published(mine) for mine in shares], now)

    def on_question(
        self,
        ticket: Any,
        routers: Sequence[str],
        make: Callable[[int], Message],
        patience_s: float,
        retry_s: float,
        now: float,
    ) -> list[Effect]:
        """A question for routers.

        Args:
            make: the message, around its number.
            patience_s: how long they have.
            retry_s: for how long one that cannot be reached is tried again.
        """
        inquiries = [_Inquiry(router, make, now + patience_s, now + retry_s) for router in routers]
        return self._begin(ticket, inquiries, lambda: {i.router: i.found for i in inquiries}, now)

    def _begin(
        self, ticket: Any, calls: Sequence[Share | _Inquiry], outcome: Callable[[], Any], now: float
    ) -> list[Effect]:
        group = _Group(ticket, len(calls), outcome)
        for call in calls:
            call.group = group
        return [self._calls.begin(call, now) for call in calls] if calls else self._settle(group)

    def on_messages(self, asker: Any, asked: Sequence[messages.ToLogic], now: float) -> list[Effect]:
        """Comets ask who their clients are; publishers push over ZeroMQ."""
        out: list[Effect] = []
        if identified := [self._identify(m) for m in asked if isinstance(m, messages.Auth)]:
            out.append(Replies([(asker, m) for m in identified]))
        if submits := [m for m in asked if isinstance(m, Submit)]:
            out += self._submit(asker, submits, now)
        return out

    def _identify(self, m: messages.Auth) -> messages.Authed:
        identity = self._tokens.identify(m.token)
        self.identified += 1
        return messages.Authed(m.req, identity.uid, identity.rooms, identity.may_join)

    def _submit(self, asker: Any, submits: Sequence[Submit], now: float) -> list[Effect]:
        size = sum(ENTRY_BYTES + len(m.body) + ITEM_BYTES * (len(m.streams) + len(m.only)) for m in submits)
        if self.waiting_bytes + size > SUBMITTED_BYTES:
            why = "too many pushes are under way"
            self.dropped += len(submits)
            return [Replies([(asker, messages.Submitted(m.req, "", "unavailable", why)) for m in submits])]
        self.waiting_bytes += size
        read = [read_submit(m, self._max_body_bytes) for m in submits]
        problems = [found if isinstance(found, str) else "" for found in read]
        pushes = [found for found in read if isinstance(found, Push)]
        return self.on_push(_Submission(asker, submits, problems, size), pushes, now)

    # -- routers

    def on_answers(self, router: str, answers: Sequence[messages.ToAsker], now: float) -> list[Effect]:
        """A router has answered."""
        out: list[Effect] = []
        for m in answers:
            if isinstance(m, messages.PublishReply):
                self._terms[router] = m.term
                if m.status == "refused":
                    fields = {"router": router}
                    out.append(Note(ERROR, "a router refuses a stream: the topologies differ", fields))
            out += self._ended(self._calls.on_answer(m, now))
        return out

    def on_not_sent(self, reqs: Sequence[int], now: float) -> list[Effect]:
        """Requests that never left."""
        return [effect for req in reqs for effect in self._ended(self._calls.on_not_sent(req, now))]

    def on_gone(self, router: str, now: float) -> list[Effect]:
        """The link to a router has broken."""
        return [effect for call in self._calls.on_gone(router, now) for effect in self._ended(call)]

    def on_tick(self, now: float) -> list[Effect]:
        """Fifty times a second: what was not answered in time, and what is due again."""
        due, silent = self._calls.on_tick(now)
        return due + [effect for call in silent for effect in self._ended(call)]

    def _ended(self, call: Call | None) -> list[Effect]:
        if call is None or not call.is_over:
            return []
        group: _Group = call.group
        group.missing -= 1
        return [] if group.missing else self._settle(group)

    def _settle(self, group: _Group) -> list[Effect]:
        ticket, outcome = group.ticket, group.outcome()
        if isinstance(outcome, list):
            for p in outcome:
                self.answered[p.status] += 1
        if isinstance(ticket, _Submission):
            self.waiting_bytes -= ticket.size
            answers = answer_submits(ticket.submits, ticket.problems, outcome)
            return [Replies([(ticket.asker, m) for m in answers])]
        return [Settled(ticket, outcome)]

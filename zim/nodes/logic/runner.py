"""Logic's runner: what becomes of pushes and questions on their way to the routers, and of requests by ZeroMQ.

Second stop of a push. In: a Push of a backend. Out: a Publish for each shard that has one of its streams, and in the
end one honest answer. `shares` decides what is honest, `zim.nodes.calls` keeps the attempts, and a placement knows
which router has a shard. Pure: no socket, no clock; the simulator runs it as it ships.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, get_args

from typing_extensions import override

from zim.errors import Unavailable, Unknown
from zim.fabric.pauses import Pause, no_pause
from zim.fabric.principals import Forbidden, Principal
from zim.fabric.push import Published, Push, Status
from zim.nodes.calls import RETRY_S, Call, Calls
from zim.nodes.effects import MESSAGE_BYTES, WARNING, Audit, Effect, Replies, topologies_differ
from zim.nodes.logic.callouts import CallOut, Reply
from zim.nodes.logic.clocks import Clocks
from zim.nodes.logic.desk import Desk, FetchKeys
from zim.nodes.logic.lanes import Lane, Lanes
from zim.nodes.logic.quotas import Quotas
from zim.nodes.logic.shares import PART_STREAMS, Share, Splitter, published, push_id_of
from zim.nodes.logic.submitting import answer_submits, read_submit
from zim.nodes.logic.trains import Train
from zim.nodes.placement import Placement
from zim.protocol import logins, messages, placing
from zim.protocol.message import Message
from zim.protocol.messages import Submit
from zim.protocol.publication import ENTRY_BYTES, STREAM_BYTES

MOVED_S = 0.3  # for who has given a shard away to answer what it was asked before
_Shares = list[list[Share] | Published]  # of each push, or why it has none
SUBMITTED_BYTES = 64 << 20  # of pushes over ZeroMQ that are under way


class Settled(Effect, frozen=True):
    """What somebody waits for has come to its end.

    Attributes:
        ticket: names it, as it was handed to the runner.
        outcome: of pushes, a Published for each; of questions, by shard its answer, or why there is none.
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
    """Shares or inquiries that are answered together.

    Attributes:
        ticket: whose.
        missing: how many are not over.
        outcome: what they came to, in their order.
    """

    __slots__ = ("missing", "outcome", "ticket")

    def __init__(self, ticket: Any, missing: int, outcome: Callable[[], Any]) -> None:
        self.ticket, self.missing, self.outcome = ticket, missing, outcome


class _Inquiry(Call):
    """A question to one shard. found: its answer, or why there is none."""

    __slots__ = ("_give_up_at", "_make", "_retry_until", "found", "group", "shard")

    def __init__(self, shard: str, make: Callable[[str, int], Message], give_up_at: float, retry_until: float) -> None:
        super().__init__()
        self.shard, self._make, self._give_up_at, self._retry_until = shard, make, give_up_at, retry_until
        self.found: Message | Unavailable | Unknown = Unavailable(shard, "away")
        self.group: Any = None

    @override
    def attempt(self, req: int, now: float) -> tuple[str, Message, int, float]:
        return self.shard, self._make(self.shard, req), MESSAGE_BYTES, self._give_up_at

    @override
    def on_answer(self, m: Message, now: float) -> None:
        self.found, self.is_over = m, True

    @override
    def on_silence(self, why: str, now: float) -> None:
        """It is not asked again: whoever wants to may do that."""
        self.found, self.is_over = Unknown(self.shard, why), True

    @override
    def on_not_sent(self, now: float) -> None:
        self.again_at, self.is_over = now + RETRY_S, now >= self._retry_until


def _replies(answers: Sequence[tuple[Any, Message]]) -> list[Effect]:
    return [Replies(answers)] if answers else []


class LogicRunner:
    """One logic node.

    Attributes:
        answered: how many pushes were answered, by status.
        desk: says who may come in; quotas: how much each backend may push.
        waiting_bytes: of pushes over ZeroMQ that are under way.
        dropped: how many of them were too many.
    """

    def __init__(
        self,
        placement: Placement,
        is_live_only: Callable[[str], bool],
        desk: Desk,
        max_body_bytes: int,
        new_id: Callable[[], str],
        part_streams: int = PART_STREAMS,
    ) -> None:
        """
        Args:
            placement: of all shards.
            is_live_only: whether a stream is.
            new_id: an id for a push without a key; nobody may have had it.
            part_streams: see Splitter.
        """
        self.answered: dict[str, int] = dict.fromkeys(get_args(Status), 0)
        self.waiting_bytes = self.dropped = 0
        self.desk, self._max_body_bytes, self._new_id = desk, max_body_bytes, new_id
        self.quotas = Quotas()
        self._splitter = Splitter(placement.shards, is_live_only, part_streams)
        self._publishers: dict[Any, Lanes] = {}  # over ZeroMQ, those of whom something is under way
        self._waiting: list[tuple[float, int, Share]] = []  # a heap, of shares that were not begun at once
        self._numbers = itertools.count()
        self._placement = placement
        self._terms = dict.fromkeys(placement.shards, 0)
        self._clocks = Clocks(placement)
        self._calls = Calls(placement.router_of)
        self._moved: deque[tuple[float, str]] = deque()  # shards that are elsewhere, until when their owner may answer

    # -- requests

    def on_push(
        self, ticket: Any, pushes: Sequence[Push], who: Principal, now: float, pause: Pause = no_pause
    ) -> list[Effect]:
        """A backend's pushes, in its order.

        Args:
            who: its principal.
            pause: is called between steps, as long as nothing has changed.
        """
        shares, refused = self._split(pushes, who, now, pause)
        return self._publish(ticket, shares, Lanes(), now) + refused

    def _split(self, pushes: Sequence[Push], who: Principal, now: float, pause: Pause) -> tuple[_Shares, list[Effect]]:
        """The shares of each push, or why it is forbidden, or one too many; and what the audit has of it."""
        found: _Shares = []
        forbidden: list[Forbidden] = []
        for p in pushes:
            try:
                who.require("push", p.streams, pause)
            except Forbidden as e:
                found.append(Published("", "forbidden", forbidden=e.stream or p.streams[0]))
                forbidden.append(e)
                continue
            if (refusal := self.quotas.ask(who.id, len(p.body), now)) is not None:
                found.append(Published("", "limited", (), refusal.retry_after_s, "", refusal))
                continue
            push_id = push_id_of(p.key, who.id) if p.key else self._new_id()
            found.append(self._splitter.split(p, push_id, now, pause))
        if not forbidden:
            return found, []
        return found, [Audit(WARNING, "pushes refused", {"reason": str(forbidden[0]), "pushes": len(forbidden)})]

    def _publish(self, ticket: Any, shares: _Shares, lanes: Lanes, now: float) -> list[Effect]:
        flat = [share for mine in shares if isinstance(mine, list) for share in mine]
        group = _Group(ticket, len(flat), lambda: [m if isinstance(m, Published) else published(m) for m in shares])
        for share in flat:
            share.group = group
        if not flat:
            return self._settle(group)
        out = self._go_on(lanes.put(flat), now)
        for share in flat:
            if not share.is_begun:
                heapq.heappush(self._waiting, (share.give_up_at, next(self._numbers), share))
        return out

    def _go_on(self, lanes: Iterable[Lane], now: float) -> list[Effect]:
        """What may go next."""
        out: list[Effect] = []
        for lane in lanes:
            while shares := lane.next():
                train = Train(lane.shard, shares, self._terms[lane.shard], self._clocks.of(lane.shard))
                out += self._calls.begin(train, now)
        return out

    def on_question(
        self,
        ticket: Any,
        shards: Sequence[str],
        make: Callable[[str, int], Message],
        patience_s: float,
        retry_s: float,
        now: float,
    ) -> list[Effect]:
        """A question for shards.

        Args:
            make: the message to a shard, around its number.
            patience_s: how long they have.
            retry_s: for how long one that cannot be reached is tried again.
        """
        inquiries = [_Inquiry(shard, make, now + patience_s, now + retry_s) for shard in shards]
        group = _Group(ticket, len(inquiries), lambda: {i.shard: i.found for i in inquiries})
        for inquiry in inquiries:
            inquiry.group = group
        return [effect for inquiry in inquiries for effect in self._calls.begin(inquiry, now)]

    def on_messages(
        self, asker: Any, asked: Sequence[messages.ToLogic], now: float, wall_s: float, pause: Pause = no_pause
    ) -> list[Effect]:
        """Comets ask who their clients are.

        Args:
            wall_s: the wall clock: tokens end by it.
            pause: see `on_push`.
        """
        out: list[Effect] = []
        answers: list[tuple[Any, Message]] = []
        for m in asked:
            if isinstance(m, logins.Auth):
                answer: Message | None = self.desk.log_in(asker, m, now, wall_s, out)
                pause()
            else:
                answer = self.desk.ask_join(asker, m, now, out)
            if answer is not None:
                answers.append((asker, answer))
        return [*_replies(answers), *out]

    def on_keys(
        self,
        effect: FetchKeys,
        document: bytes | None,
        why: str,
        now: float,
        wall_s: float,
        pause: Pause = no_pause,
    ) -> list[Effect]:
        """The keys of an issuer have come; or they have not, and why. pause: see `Desk.on_keys`."""
        out: list[Effect] = []
        return [*_replies(self.desk.on_keys(effect.keys, document, why, now, wall_s, out, pause)), *out]

    def on_reply(self, effect: CallOut, reply: Reply | str, now: float) -> list[Effect]:
        """The application has answered; or it has not, and why."""
        out: list[Effect] = []
        return [*_replies(self.desk.on_reply(effect.caller, effect.number, reply, now, out)), *out]

    def on_submits(
        self, asker: Any, submits: Sequence[Submit], who: Principal | str, now: float, pause: Pause = no_pause
    ) -> list[Effect]:
        """A publisher pushes over ZeroMQ.

        Args:
            who: its principal, or why it is nobody.
            pause: see `on_push`.
        """
        if isinstance(who, str):
            return _replies([(asker, messages.Submitted(m.req, "", "unauthorized", who)) for m in submits])
        size = sum(ENTRY_BYTES + len(m.body) + STREAM_BYTES * (len(m.streams) + len(m.only)) for m in submits)
        if self.waiting_bytes + size > SUBMITTED_BYTES:
            self.dropped, why = self.dropped + len(submits), "too many pushes are under way"
            return [Replies([(asker, messages.Submitted(m.req, "", "unavailable", why)) for m in submits])]
        self.waiting_bytes += size
        read = [read_submit(m, self._max_body_bytes, pause) for m in submits]
        problems = [found if isinstance(found, str) else "" for found in read]
        pushes = [found for found in read if isinstance(found, Push)]
        shares, refused = self._split(pushes, who, now, pause)
        lanes = self._publishers.setdefault(asker, Lanes())
        return self._publish(_Submission(asker, submits, problems, size), shares, lanes, now) + refused

    # -- routers

    def on_answers(self, router: str, answers: Sequence[messages.ToAsker], now: float) -> list[Effect]:
        """A router has answered."""
        out: list[Effect] = []
        for m in answers:
            if isinstance(m, placing.Owned | placing.Moved):
                out += self._on_placing(m, now)
                continue
            if isinstance(m, messages.PublishReply | messages.LogTime):
                self._terms[m.shard] = m.term
            if isinstance(m, messages.PublishReply) and any(outcome.status == "refused" for outcome in m.outcomes):
                out.append(topologies_differ(router=router))
            out += self._ended(self._calls.on_answer(m, now), now)
        return out

    def _on_placing(self, m: placing.Owned | placing.Moved, now: float) -> list[Effect]:
        """Where shards are. What was asked of the owner before is asked of the next one."""
        if isinstance(m, placing.Owned):
            self._moved += [(now + MOVED_S, shard) for shard in self._placement.on_owned(m)]
            return []
        self._placement.on_moved(m)
        return self._ended(self._calls.on_not_sent(m.req, now), now)

    def _see_moved(self, now: float) -> list[Effect]:
        """Who owned a shard had the time to say what has become of what it was asked."""
        out: list[Effect] = []
        while self._moved and self._moved[0][0] <= now:
            calls = self._calls.on_moved(self._moved.popleft()[1], now)
            out += [effect for call in calls for effect in self._ended(call, now)]
        return out

    def on_not_sent(self, reqs: Sequence[int], now: float) -> list[Effect]:
        """Requests that never left."""
        return [effect for req in reqs for effect in self._ended(self._calls.on_not_sent(req, now), now)]

    def know(self, routers: Sequence[str]) -> None:
        """All routers of a topology that has changed: those of before, and perhaps more."""
        self._placement.know(routers)

    def on_link(self, router: str, is_connected: bool, now: float) -> list[Effect]:
        """A router is there, or is not any more."""
        self._placement.on_link(router, is_connected)
        self._clocks.ask_soon()
        lost = [] if is_connected else self._calls.on_gone(router, now)
        return [effect for call in lost for effect in self._ended(call, now)]

    def on_tick(self, now: float) -> list[Effect]:
        """Fifty times a second: what was not answered in time, and what is due again."""
        due, silent = self._calls.on_tick(now)
        out = due + [effect for call in silent for effect in self._ended(call, now)]
        out += self._see_moved(now)
        out += self._placement.due(now)
        out += [effect for call in self._clocks.due(now) for effect in self._calls.begin(call, now)]
        out += _replies(self.desk.on_tick(now, out))
        return out + self._give_up(now)

    def _give_up(self, now: float) -> list[Effect]:
        """Those that have waited for too long for others."""
        late: list[Share] = []
        waiting = self._waiting
        while waiting and (waiting[0][2].is_begun or waiting[0][2].is_over or waiting[0][0] < now):
            _, _, share = heapq.heappop(waiting)
            if not share.is_begun and not share.is_over:
                share.give_up(share.waits_for_whom)
                late.append(share)
        return self._shares_ended(late, now)

    def _ended(self, call: Call | None, now: float) -> list[Effect]:
        if isinstance(call, Train):
            return self._shares_ended(call.take_ended(), now)
        return self._count(call.group) if isinstance(call, _Inquiry) and call.is_over else []

    def _shares_ended(self, ended: list[Share], now: float) -> list[Effect]:
        """Shares are over: those that follow them, or come after them, may go."""
        out: list[Effect] = []
        touched: dict[Lane, None] = {}
        for share in ended:
            touched[share.lane] = None
            share.lane.ended(share)
            followers, share.followers = share.followers, []  # they know it, too
            for follower in followers:
                touched[follower.lane] = None
                if share.status == "ok":
                    follower.lane.release(follower)
                elif not follower.is_over:
                    follower.follow(share)
                    follower.lane.ended(follower)
                    out += self._count(follower.group)
            out += self._count(share.group)
        return self._go_on(touched, now) + out

    def _count(self, group: _Group) -> list[Effect]:
        group.missing -= 1
        return [] if group.missing else self._settle(group)

    def _settle(self, group: _Group) -> list[Effect]:
        ticket, outcome = group.ticket, group.outcome()
        del group.outcome  # it knows them, and they know the group: none would go before the garbage collector comes
        if isinstance(outcome, list):
            for p in outcome:
                self.answered[p.status] += 1
        if isinstance(ticket, _Submission):
            self.waiting_bytes -= ticket.size
            if not self._publishers.get(ticket.asker):
                self._publishers.pop(ticket.asker, None)
            answers = answer_submits(ticket.submits, ticket.problems, outcome)
            return [Replies([(ticket.asker, m) for m in answers])]
        return [Settled(ticket, outcome)]

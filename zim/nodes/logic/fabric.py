"""What the HTTP API asks of the fabric, as one logic node sees it: its shards. Logic keeps nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import gevent
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from typing_extensions import override

from zim.errors import Unavailable, Unknown
from zim.fabric.answers import KeptMessage, Piece, Receipt
from zim.fabric.limits import OFFSET
from zim.fabric.port import Fabric
from zim.fabric.principals import Principal
from zim.fabric.push import Published, Push
from zim.fabric.questions import AnyQuestion, PushReceipt, Question
from zim.fabric.sharding import Shards
from zim.net.fairness import give_way
from zim.nodes.effects import Effect
from zim.nodes.logic.runner import LogicRunner
from zim.nodes.logic.shares import GIVE_UP_S
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError
from zim.protocol.message import Message

SILENT_S = 1.0  # after it a router that does not say what it knows is named
WAIT_S, MOST_WAIT_S = 0.03, 0.5  # between two looks at a receipt: longer and longer
HISTORIES = 4  # of one router that are read at once: each may be as large as that
HISTORY_BYTES = 4 << 20  # an answer ends with the page that gets there; who asks goes on after its last message

A = TypeVar("A")

log = logging.getLogger(__name__)


class RouterFabric(Fabric):
    """The fabric behind a logic node. Each call hands its request to the runner, and waits until it is settled."""

    def __init__(self, names: Sequence[str], runner: LogicRunner, perform: Callable[[Iterable[Effect]], None]) -> None:
        """
        Args:
            names: of all shards.
            perform: does what the runner returns.
        """
        self._runner, self._perform = runner, perform
        self._shards = Shards(names)
        self._histories = {name: BoundedSemaphore(HISTORIES) for name in names}

    @override
    def publish(self, push: Push, who: Principal) -> Published:
        return self.publish_many([push], who)[0]

    @override
    def publish_many(self, pushes: Sequence[Push], who: Principal) -> Sequence[Published]:
        ticket: AsyncResult[Any] = AsyncResult()
        self._perform(self._runner.on_push(ticket, pushes, who, time.monotonic(), give_way))
        return cast(Sequence[Published], ticket.get())

    @override
    def ask(self, question: Question[A], who: Principal) -> A:
        who.require(question.scope, question.about())
        stream = question.asked_at()
        asked = [self._shards.of(stream)] if stream else self._shards.names
        patience = (SILENT_S, 0.0) if question.names_silent else (GIVE_UP_S, GIVE_UP_S)
        answers: dict[str, A] = {}
        silent: dict[str, Unavailable | Unknown] = {}
        make = partial(messages.Ask, question=cast(AnyQuestion, question))
        for shard, m in self._ask(asked, make, *patience).items():
            try:
                answers[shard] = _answer(m, question)
            except (Unavailable, Unknown) as e:
                silent[shard] = e.with_traceback(None)  # which leads back to this dict
        if silent and not question.names_silent:
            may_be_done = bool(answers) or any(isinstance(error, Unknown) for error in silent.values())
            error = next(iter(silent.values()))
            raise (Unknown if question.is_order and may_be_done else Unavailable)(error.who, error.why)
        return question.merge(answers, list(silent))

    @override
    def history(self, stream: str, after: int, limit: int, who: Principal) -> Piece:
        who.require("read", (stream,))
        shard = self._shards.of(stream)
        with self._histories[shard]:
            return self._history(shard, stream, after, limit)

    def _history(self, shard: str, stream: str, after: int, limit: int) -> Piece:
        found: list[KeptMessage] = []
        size, first = 0, None
        while True:
            m = self._read(shard, stream, after, limit - len(found))
            first = first or m
            if m.epoch != first.epoch:  # its router was started anew, between two pages: another history
                return Piece(stream, first.epoch, first.floor + 1, first.head, found)
            found += [KeptMessage(r.offset, r.time_ms, r.op, r.body) for r in m.records]
            after = max(m.last, after)
            size += sum(len(r.body) for r in m.records)
            if len(found) >= limit or size >= HISTORY_BYTES or after >= m.head:
                return Piece(stream, m.epoch, m.floor + 1, m.head, found)

    def _read(self, shard: str, stream: str, after: int, limit: int) -> messages.Records:
        make = partial(messages.Read, stream=stream, after=after, upto=OFFSET, limit=limit)
        m = self._ask([shard], make, GIVE_UP_S, GIVE_UP_S)[shard]
        if isinstance(m, Unavailable | Unknown):
            raise Unavailable(m.who, m.why)  # reading changes nothing
        assert isinstance(m, messages.Records)
        if not m.epoch:
            raise Unavailable(shard, f"says that {stream} is another's: the topologies differ")
        return m

    @override
    def receipt(
        self, push_id: str, who: Principal, wait_s: float = 0.0, is_gone: Callable[[], bool] = lambda: False
    ) -> Receipt:
        until, pause_s = time.monotonic() + wait_s, WAIT_S
        while True:
            found = self.ask(PushReceipt(push_id), who)
            if found.is_final or time.monotonic() > until or is_gone():
                return found
            gevent.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_WAIT_S)

    def _ask(
        self, names: Sequence[str], make: Callable[[str, int], Message], patience_s: float, retry_s: float
    ) -> Mapping[str, messages.ToAsker | Unavailable | Unknown]:
        ticket: AsyncResult[Any] = AsyncResult()
        self._perform(self._runner.on_question(ticket, names, make, patience_s, retry_s, time.monotonic()))
        return cast(Mapping[str, messages.ToAsker | Unavailable | Unknown], ticket.get())


def _answer(m: messages.ToAsker | Unavailable | Unknown, question: Question[A]) -> A:
    """What a router has answered.

    Raises:
        Unavailable, Unknown: nothing, or nothing that is understood.
    """
    if isinstance(m, Unavailable | Unknown):
        raise m
    assert isinstance(m, messages.Answered)
    if m.answer is None:
        raise Unavailable(m.shard, f"says that {question.asked_at()} is another's: the topologies differ")
    try:
        return codec.decode_answer(m, question)
    except CodecError as e:
        log.error("answer not understood", extra={"peer": m.shard, "error": str(e)})
        raise Unknown(m.shard, "its answer is not understood") from None

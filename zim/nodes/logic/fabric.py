"""What the HTTP API asks of the fabric, as one logic node sees it: a link to every router. Logic keeps nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, cast, get_args

import gevent
from typing_extensions import override

from zim.errors import Unavailable, Unknown
from zim.fabric.answers import KeptMessage, Piece, Receipt
from zim.fabric.limits import OFFSET
from zim.fabric.port import Fabric
from zim.fabric.push import Published, Push, Status
from zim.fabric.questions import AnyQuestion, PushReceipt, Question
from zim.fabric.sharding import Shards
from zim.net.links import NotSent
from zim.nodes.logic.publishing import GIVE_UP_S, RETRY_S, Publisher, RouterAsker
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError

SILENT_S = 1.0  # after it a router that does not say what it knows is named
WAIT_S, MOST_WAIT_S = 0.03, 0.5  # between two looks at a receipt: longer and longer
HISTORY_BYTES = 4 << 20  # an answer ends with the page that gets there; who asks goes on after its last message

A = TypeVar("A")
T = TypeVar("T")

log = logging.getLogger(__name__)


class RouterFabric(Fabric):
    """The fabric behind a logic node.

    Attributes:
        answered: how many pushes were answered, by status.
    """

    def __init__(self, routers: dict[str, RouterAsker]) -> None:
        self.answered: dict[str, int] = dict.fromkeys(get_args(Status), 0)
        self._routers = routers
        self._shards = Shards(list(routers))
        self._publisher = Publisher(routers)

    @override
    def publish(self, push: Push) -> Published:
        return self.publish_many([push])[0]

    @override
    def publish_many(self, pushes: Sequence[Push]) -> Sequence[Published]:
        published = self._publisher.publish_many(pushes)
        for p in published:
            self.answered[p.status] += 1
        return published

    @override
    def ask(self, question: Question[A]) -> A:
        stream = question.asked_at()
        asked = [self._shards.owner(stream)] if stream else list(self._routers)
        answers: dict[str, A] = {}
        silent: dict[str, Unavailable | Unknown] = {}
        for router, found in self._at_each(asked, lambda router: self._answer_of(router, question)).items():
            if isinstance(found, Unavailable | Unknown):
                silent[router] = found
            else:
                answers[router] = found
        if silent and not question.names_silent:
            may_be_done = bool(answers) or any(isinstance(error, Unknown) for error in silent.values())
            error = next(iter(silent.values()))
            raise (Unknown if question.is_order and may_be_done else Unavailable)(error.who, error.why)
        return question.merge(answers, list(silent))

    @override
    def history(self, stream: str, after: int, limit: int) -> Piece:
        found: list[KeptMessage] = []
        size, owner = 0, self._shards.owner(stream)
        while True:
            m = self._read(owner, stream, after, limit - len(found))
            found += [KeptMessage(r.offset, r.time_ms, r.op, r.body) for r in m.records]
            after = max(m.last, after)
            size += sum(len(r.body) for r in m.records)
            if len(found) >= limit or size >= HISTORY_BYTES or after >= m.head:
                return Piece(stream, m.epoch, m.floor + 1, m.head, found)

    def _read(self, owner: str, stream: str, after: int, limit: int) -> messages.Records:
        try:
            make = partial(messages.Read, stream=stream, after=after, upto=OFFSET, limit=limit)
            m = self._ask(owner, make, GIVE_UP_S, GIVE_UP_S)
        except Unknown as e:  # reading changes nothing
            raise Unavailable(e.who, e.why) from None
        assert isinstance(m, messages.Records)
        return m

    @override
    def receipt(self, push_id: str, wait_s: float = 0.0) -> Receipt:
        until, pause_s = time.monotonic() + wait_s, WAIT_S
        while True:
            found = self.ask(PushReceipt(push_id))
            if not found.pending or time.monotonic() > until:
                return found
            gevent.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_WAIT_S)

    def _answer_of(self, router: str, question: Question[A]) -> A | Unavailable | Unknown:
        """One router's answer, or why there is none."""
        give_up_s, retry_s = (SILENT_S, 0.0) if question.names_silent else (GIVE_UP_S, GIVE_UP_S)
        try:
            m = self._ask(router, lambda req: messages.Ask(req, cast(AnyQuestion, question)), give_up_s, retry_s)
            assert isinstance(m, messages.Answered)
            return codec.decode_answer(m, question)
        except (NotSent, Unknown) as e:
            return e
        except CodecError as e:
            log.error("answer not understood", extra={"peer": router, "error": str(e)})
            return Unknown(router, "its answer is not understood")

    def _ask(
        self, router: str, make: Callable[[int], messages.Message], give_up_s: float, retry_s: float
    ) -> messages.ToAsker:
        """A router's answer. What could not even be sent is tried again for `retry_s`.

        Raises:
            NotSent: it surely did nothing.
            Unknown: no answer came in time.
        """
        now = time.monotonic()
        until, retry_until = now + give_up_s, now + retry_s
        while True:
            try:
                return self._routers[router].ask(make, max(0.0, until - time.monotonic()))
            except NotSent:
                if time.monotonic() >= retry_until:
                    raise
                gevent.sleep(RETRY_S)
            except Unavailable as e:  # it was sent
                raise Unknown(e.who, e.why) from None

    def _at_each(self, routers: Sequence[str], do: Callable[[str], T]) -> dict[str, T]:
        """Does it for every router at once. `do` raises nothing."""
        if len(routers) == 1:
            return {routers[0]: do(routers[0])}
        jobs = [gevent.spawn(do, router) for router in routers]
        gevent.joinall(jobs, raise_error=True)
        return {router: job.get() for router, job in zip(routers, jobs, strict=True)}

"""Pushes that one message carries to a router, until each of them is over. Pure: no socket, no clock."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from zim.nodes.calls import RETRY_S, Call
from zim.nodes.logic.shares import Share
from zim.nodes.remote_clock import RemoteClock
from zim.protocol.message import Message
from zim.protocol.messages import Publish, PublishReply

ATTEMPTS = 3
ANSWER_S = 2.0  # for one attempt; a router makes a publisher wait at most one second for a comet that is behind


class Train(Call):
    """Some shares of one shard, asked together and in their order."""

    __slots__ = ("_asked", "_clock", "_ended", "_number", "_term", "shard")

    def __init__(self, shard: str, shares: Sequence[Share], term: int, clock: RemoteClock) -> None:
        """
        Args:
            term, clock: the shard's, as far as they are known.
        """
        super().__init__()
        self.shard, self._term, self._clock = shard, term, clock
        self._asked = shares
        self._ended: list[Share] = []
        self._number = 1

    def take_ended(self) -> list[Share]:
        """Those that are over since it was asked last."""
        ended, self._ended = self._ended, []
        return ended

    @override
    def attempt(self, req: int, now: float) -> tuple[str, Message, int, float]:
        asked = self._asked = [share for share in self._asked if not share.is_over]
        clock = self._clock if self._clock.term == self._term else None
        message = Publish(self.shard, req, self._number, self._term, [share.publication(now, clock) for share in asked])
        return self.shard, message, sum(share.size for share in asked), now + ANSWER_S

    def on_answer(self, m: PublishReply, now: float) -> None:
        """The router has said what became of some of them."""
        for outcome in m.outcomes:
            if 0 <= outcome.at < len(self._asked) and not (share := self._asked[outcome.at]).is_over:
                share.on_outcome(outcome, now)
                self._ended.append(share)
        self._sum_up()

    def on_silence(self, why: str, now: float) -> None:
        """An attempt went out, and of some nothing came back."""
        why = f"{self.shard}: {why}"
        self._number, self.again_at = self._number + 1, now
        for share in self._asked:
            if not share.is_over:
                share.on_silence(why)
                if self._number > ATTEMPTS or now > share.give_up_at:
                    share.give_up(why)
                    self._ended.append(share)
        self._sum_up()

    def on_not_sent(self, now: float) -> None:
        """The router is away; it may be back before the time is up."""
        self.again_at = now + RETRY_S
        for share in self._asked:
            if not share.is_over and now > share.give_up_at:
                share.give_up(f"{self.shard} is away")
                self._ended.append(share)
        self._sum_up()

    def _sum_up(self) -> None:
        self.is_over = all(share.is_over for share in self._asked)

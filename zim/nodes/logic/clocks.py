"""Each shard's log time, as a logic knows it: it fixes the moment when a push is not worth anything any more. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from zim.nodes.calls import Call
from zim.nodes.effects import MESSAGE_BYTES
from zim.nodes.placement import Placement
from zim.nodes.remote_clock import RemoteClock
from zim.protocol.message import Message
from zim.protocol.messages import AskTime, LogTime

ASK_S = 1.0  # each shard whose owner is there is asked so often; an answer has as long


class _Asking(Call):
    """One question. A silence is made good by the next one."""

    __slots__ = ("_asked_at", "_clock", "_shard")

    def __init__(self, shard: str, clock: RemoteClock) -> None:
        super().__init__()
        self._shard, self._clock, self._asked_at = shard, clock, 0.0

    @override
    def attempt(self, req: int, now: float) -> tuple[str, Message, int, float]:
        self._asked_at = now
        return self._shard, AskTime(self._shard, req), MESSAGE_BYTES, now + ASK_S

    @override
    def on_answer(self, m: LogTime, now: float) -> None:
        self._clock.heard(m.term, self._asked_at, now, m.now_ms)
        self.is_over = True

    @override
    def on_silence(self, why: str, now: float) -> None:
        self.is_over = True

    @override
    def on_not_sent(self, now: float) -> None:
        self.is_over = True


class Clocks:
    """Of all shards."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._clocks = {shard: RemoteClock() for shard in placement.shards}
        self._ask_at = 0.0

    def of(self, shard: str) -> RemoteClock:
        """That of one."""
        return self._clocks[shard]

    def ask_soon(self) -> None:
        """Somebody has come, or gone."""
        self._ask_at = 0.0

    def due(self, now: float) -> Sequence[Call]:
        """Questions to be asked now."""
        if now < self._ask_at:
            return ()
        self._ask_at = now + ASK_S
        return [_Asking(s, clock) for s, clock in sorted(self._clocks.items()) if self._placement.is_there(s)]

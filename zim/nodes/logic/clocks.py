"""Each router's log time, as a logic knows it: it fixes the moment when a push is not worth anything any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from typing_extensions import override

from zim.nodes.calls import Call
from zim.nodes.effects import MESSAGE_BYTES
from zim.nodes.remote_clock import RemoteClock
from zim.protocol.message import Message
from zim.protocol.messages import AskTime, LogTime

ASK_S = 1.0  # each router that is there is asked so often; an answer has as long


class _Asking(Call):
    """One question. A silence is made good by the next one."""

    __slots__ = ("_asked_at", "_clock", "_router")

    def __init__(self, router: str, clock: RemoteClock) -> None:
        super().__init__()
        self._router, self._clock, self._asked_at = router, clock, 0.0

    @override
    def attempt(self, req: int, now: float) -> tuple[str, Message, int, float]:
        self._asked_at = now
        return self._router, AskTime(req), MESSAGE_BYTES, now + ASK_S

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
    """Of all routers."""

    def __init__(self, routers: Iterable[str]) -> None:
        self._clocks = {router: RemoteClock() for router in routers}
        self._there: set[str] = set()
        self._ask_at = 0.0

    def of(self, router: str) -> RemoteClock:
        """That of one."""
        return self._clocks[router]

    def on_link(self, router: str, is_connected: bool) -> None:
        """A router is there, or is not any more."""
        (self._there.add if is_connected else self._there.discard)(router)
        self._ask_at = 0.0

    def due(self, now: float) -> Sequence[Call]:
        """Questions to be asked now."""
        if now < self._ask_at:
            return ()
        self._ask_at = now + ASK_S
        return [_Asking(router, self._clocks[router]) for router in sorted(self._there)]

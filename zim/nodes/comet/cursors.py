"""Acknowledgements of clients on their way to the routers that store them. Pure: no socket, no clock."""

from __future__ import annotations

import itertools
from collections.abc import Container
from typing import NamedTuple

from zim.nodes.comet.effects import CursorMoved
from zim.nodes.comet.views import Session
from zim.protocol.messages import Acknowledge, Acknowledged

AGAIN_S, MOST_S = 0.5, 8.0  # without an answer, until it is asked again: longer and longer


class _Ack(NamedTuple):
    session: Session
    epoch: str
    offset: int
    again_at: float
    pause_s: float


class Acknowledgements:
    """What clients have acknowledged, and no router has stored yet: one a session, however many it sends."""

    def __init__(self) -> None:
        self._reqs = itertools.count(1)
        self._acks: dict[int, _Ack] = {}
        self._last: dict[Session, int] = {}  # which of them is a session's

    def acknowledge(self, session: Session, offset: int, now: float) -> None:
        """Its user's stream is acknowledged up to there."""
        req = next(self._reqs)
        before, epoch = self._acks.pop(self._last.get(session, 0), None), session.views[0].epoch
        self._last[session] = req
        if before is not None and before.epoch == epoch:
            offset = max(offset, before.offset)
        self._ask(req, _Ack(session, epoch, offset, now + AGAIN_S, AGAIN_S))

    def _ask(self, req: int, ack: _Ack) -> None:
        self._acks[req] = ack
        user = ack.session.views[0]
        user.link.ask(Acknowledge(user.link.shard, req, user.stream, ack.epoch, ack.offset))

    def on_acknowledged(self, m: Acknowledged, conns: Container[int]) -> CursorMoved | None:
        """A router has moved a cursor: what its client is told, if somebody waits for that.

        Args:
            conns: the numbers of connections that are still there.
        """
        ack = self._acks.pop(m.req, None)
        if ack is None:
            return None
        session = ack.session
        del self._last[session]
        if session.conn not in conns:
            return None
        user = session.views[0]
        user.acknowledged = max(user.acknowledged, m.offset)
        return CursorMoved(session, user.stream, m.offset)

    def tick(self, now: float, conns: Container[int]) -> None:
        """Asks again. conns: see `on_acknowledged`."""
        for req, ack in list(self._acks.items()):
            if ack.session.conn not in conns:
                del self._acks[req], self._last[ack.session]
            elif now > ack.again_at:
                pause_s = min(2 * ack.pause_s, MOST_S)
                self._ask(req, ack._replace(again_at=now + pause_s, pause_s=pause_s))

"""What a comet does when a router orders something: sessions that must go, or change rooms; networks that may not come.

Pure: no socket, no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zim.fabric.limits import ROOMS
from zim.nodes.comet.effects import Barred, Expelled
from zim.nodes.effects import Effect
from zim.protocol.orders import Bar, Expel, Move, Order, Unbar

if TYPE_CHECKING:
    from zim.nodes.comet.hub import Hub


def obey(hub: Hub, order: Order, now: float) -> list[Effect]:
    """What is to be done. A session that is not here any more needs nothing."""
    match order:
        case Bar(network=network, reason=reason):
            hub.barred.add(network, reason)
            return [Barred()]
        case Unbar(network=network):
            hub.barred.discard(network) if network else hub.barred.clear()
            return []
        case Expel(conn=conn):
            session = hub.sessions.get(conn)
            return [] if session is None else [Expelled(session, order.why, order.reason)]
        case Move():
            return _move(hub, order, now)


def _move(hub: Hub, order: Move, now: float) -> list[Effect]:
    session = hub.sessions.get(order.conn)
    if session is None:
        return []
    here = {*session.rooms}
    out = hub.leave_rooms(session, order.leave, 0, now, order.reason) if here & {*order.leave} else []
    join = [room for room in order.join if room not in here][: max(0, ROOMS - len(session.rooms))]
    session.given = tuple({*session.given, *join} - {*order.leave})
    return [*out, *hub.join_rooms(session, join, 0, now)] if join else out

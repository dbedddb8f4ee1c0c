"""Who is online where: the feeds of all comets, and by stream which of them serve it. Pure: no socket, no clock.

It is soft state. Comets tell it all they have when they register, and all that changes; it never asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from zim.fabric.answers import Place
from zim.fabric.audience import Audience
from zim.fabric.limits import SESSION_ROOMS, SESSIONS
from zim.fabric.streams import EVERYBODY, is_user_stream, room_of, room_stream, user_stream
from zim.nodes.router.feed import Feed, Registered
from zim.protocol.messages import Begin, Change, Changes, Del, Put, Room
from zim.protocol.orders import Order

# No clock and no lost log moves a number further than to the first. Above it there is as much room again on the wire.
FAR, STEP = 1 << 52, 1 << 32

_NOBODY: Mapping[Feed, Any] = {}


def stream_of(change: Change) -> str:
    """The stream whose epoch and head answer a change; "" for those that have none."""
    if isinstance(change, Put):
        return user_stream(change.uid)
    if isinstance(change, Room):
        return room_stream(change.room)
    return ""


class Directory:
    """Sessions and rooms of one shard.

    Attributes:
        feeds: by comet name. One whose lease has ended stays, for its numbers.
        left: streams that nobody listens to any more, since somebody took that list.
        came: sessions that are here now, at which comet, and whether they are new to the fabric, too; since then.
        begun: registrations that have begun since then.
    """

    def __init__(self, next_seq: int) -> None:
        self.feeds: dict[str, Feed] = {}
        self.next_seq = next_seq
        self.left: list[str] = []
        self.came: list[tuple[Feed, Registered, bool]] = []
        self.begun: list[Feed] = []
        self._users: dict[str, dict[Feed, dict[int, Registered]]] = {}
        self._rooms: dict[str, dict[Feed, int]] = {}

    def serving(self, stream: str) -> Iterable[Feed]:
        """The feeds of the comets where somebody is subscribed to the stream."""
        if is_user_stream(stream):
            return self._users.get(stream, _NOBODY)
        return self._rooms.get(stream, _NOBODY)

    def targets(self, feed: Feed, stream: str, audience: Audience) -> int:
        """How many sessions a message of the stream is for, at one comet."""
        if not is_user_stream(stream):
            return feed.rooms.get(room_of(stream), 0)
        here = self._users.get(stream, _NOBODY).get(feed, {})
        keys = audience.keys
        return sum(session.key in keys for session in here.values()) if keys else len(here)

    def is_served(self, stream: str) -> bool:
        """Whether any comet serves it."""
        return stream in self._users or stream in self._rooms

    # -- the feed up

    def is_possible(self, m: Changes, change: Change) -> bool:
        """Whether its numbers go on from those that are known: else one message could use up all there are."""
        feed = self.feeds.get(m.comet)
        if feed is None:
            return True
        return _may_follow(feed.inc, m.inc) and (m.inc != feed.inc or _may_follow(feed.applied, change.n))

    def apply(self, m: Changes, change: Change, lease_end: float, is_ours: bool = True) -> Feed | None:
        """Applies one change, once and in order.

        Args:
            is_ours: its stream is of this shard. Of another's nothing is kept, and the feed goes on.

        Returns:
            The feed if the change is to be answered: it was applied now or before. Nothing if it cannot be placed;
            the comet will say it again, or be told to register.
        """
        feed = self.feeds.get(m.comet)
        if feed is not None and m.inc < feed.inc:
            return None
        if isinstance(change, Begin) and (feed is None or m.inc > feed.inc or change.n > feed.applied):
            made = feed.made if feed is not None and feed.inc == m.inc else 0
            unobeyed = list(feed.orders) if feed is not None and feed.inc == m.inc else []
            if feed is not None:
                self.end(feed)
            feed = self.feeds[m.comet] = Feed(m.comet, m.inc, change.n, change.count, made, lease_end)
            for order in unobeyed:  # connections keep their numbers
                feed.order(partial(_renumbered, order))
            self.begun.append(feed)
            return feed
        if feed is None or not feed.is_alive or m.inc != feed.inc or change.n > feed.applied + 1:
            return None
        if change.n == feed.applied + 1:
            feed.applied = change.n
            if not is_ours:
                return feed
            if isinstance(change, Put):
                self._put(feed, change)
            elif isinstance(change, Del):
                self._delete(feed, change.conn)
            elif isinstance(change, Room):
                self._set_room(feed, change.room, change.members)
        return feed

    def _put(self, feed: Feed, change: Put) -> None:
        """Idempotent by (comet, incarnation, connection): a repeat keeps its seq."""
        known = feed.sessions.get(change.conn)
        seq = change.seq if _may_follow(self.next_seq, change.seq) else 0
        seq = seq or (known.seq if known else 0)
        if known:
            self._delete(feed, change.conn)
        if not seq:
            seq = self.next_seq
        self.next_seq = max(self.next_seq, seq + 1)  # a log that was lost may have given it already
        rest = change.device, change.most, known is not None and known.is_leaving
        session = feed.sessions[change.conn] = Registered(change.conn, change.uid, seq, change.rooms, *rest)
        if known is None:
            self.came.append((feed, session, not change.seq))
        feed.roomless += not session.rooms
        self._users.setdefault(user_stream(change.uid), {}).setdefault(feed, {})[change.conn] = session

    def _delete(self, feed: Feed, conn: int) -> None:
        session = feed.sessions.pop(conn, None)
        if session is None:
            return
        feed.roomless -= not session.rooms
        stream = user_stream(session.uid)
        here = self._users[stream][feed]
        del here[conn]
        if not here:
            self._remove(self._users, stream, feed)

    def _set_room(self, feed: Feed, room: str, members: int) -> None:
        """Everybody's room is served also where nobody is yet: who comes must not wait for it."""
        stream = room_stream(room)
        if members > 0 or room == EVERYBODY:
            feed.rooms[room] = members
            self._rooms.setdefault(stream, {})[feed] = members
        elif feed.rooms.pop(room, None) is not None:
            self._remove(self._rooms, stream, feed)

    def end(self, feed: Feed) -> None:
        """The end of a lease, or a registration that replaces it: all of the comet's sessions are gone."""
        for session in feed.sessions.values():
            stream = user_stream(session.uid)
            if feed in self._users.get(stream, _NOBODY):
                self._remove(self._users, stream, feed)
        for room in feed.rooms:
            self._remove(self._rooms, room_stream(room), feed)
        feed.end()

    def _remove(self, index: dict[str, dict[Feed, Any]], stream: str, feed: Feed) -> None:
        at = index[stream]
        del at[feed]
        if not at:
            del index[stream]
            self.left.append(stream)

    # -- questions

    def seq(self, comet: str, conn: int) -> int:
        """The number of a session; 0 if there is none."""
        session = self.feeds[comet].sessions.get(conn)
        return session.seq if session else 0

    def sessions_of(self, uid: str) -> list[tuple[Feed, Registered]]:
        """A user's sessions, and at which comets they are."""
        found = self._users.get(user_stream(uid), _NOBODY)
        return [(feed, session) for feed, here in found.items() for session in here.values()]

    def locate(self, uid: str) -> tuple[list[Place], int]:
        """The user's sessions, as many as an answer may have; and how many there are."""
        found = self._users.get(user_stream(uid), _NOBODY)
        places: list[Place] = []
        n_rooms = 0
        for feed, session in ((feed, s) for feed, here in found.items() for s in here.values()):
            n_rooms += len(session.rooms)
            if len(places) == SESSIONS or n_rooms > SESSION_ROOMS:
                break
            places.append(Place(feed.comet, session.key, session.rooms))
        return places, sum(map(len, found.values()))

    def sessions(self) -> list[Registered]:
        """All sessions as they are now: who changes rooms gets another value. 1 ms for 100,000."""
        found: list[Registered] = []
        for feed in self.feeds.values():
            found += feed.sessions.values()
        return found

    def room_streams(self) -> list[str]:
        """The streams of rooms that somebody is in, and everybody's."""
        return list(self._rooms)

    def members(self, stream: str) -> int:
        """How many sessions are in a room, over all comets."""
        return sum(self._rooms.get(stream, _NOBODY).values())

    def n_rooms(self) -> int:
        """Rooms that somebody is in."""
        return len(self._rooms) - (EVERYBODY in self._rooms)

    def comets(self) -> dict[str, int]:
        """Sessions by comet."""
        return {name: len(feed.sessions) for name, feed in self.feeds.items() if feed.sessions}

    def roomless(self) -> int:
        """Sessions that are in no room."""
        return sum(feed.roomless for feed in self.feeds.values())


def _renumbered(order: Order, n: int) -> Order:
    return msgspec.structs.replace(order, n=n)


def _may_follow(known: int, number: int) -> bool:
    return number < FAR or number <= known + STEP

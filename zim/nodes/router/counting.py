"""Who is in rooms, and which are the largest: counted when somebody asks, in steps. Pure: no socket, no clock.

Nothing is kept for it. A change carries all rooms of its session, so numbers that are kept as changes are applied would
make each join cost as many steps as its session has rooms, and the end of a lease as many as all its sessions have,
whether somebody asks or not. Counting looks at every session. So who asks while a round is under way, or soon after
it, waits for the next one. That answers all who wait, and rounds take a tenth of the router's time at most. While one
is under way it takes 8 bytes for each session, and 8 for each time that a session is in a room that was asked for.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from zim.fabric.answers import Counts, InRoom, Reached, RoomSize, RoomSizes
from zim.fabric.questions import KickRoom, LargestRooms, OnlineCounts, Question, RoomCount
from zim.fabric.streams import EVERYBODY, room_of
from zim.nodes.effects import Effect, Replies
from zim.nodes.router.directory import Directory
from zim.nodes.router.effects import CountOn
from zim.nodes.router.shard import QUESTIONS, Shard
from zim.protocol.messages import Answered, Ask
from zim.protocol.orders import Why

STEP = 5_000  # sessions and rooms of theirs that one step looks at: about a millisecond
STEP_ROOMS = 2_000  # the same, where the sizes of rooms are looked at
REST, LEAST_REST_S, MOST_REST_S = 9, 0.1, 1.0  # after a round: so many times as long as it took, within these

R = TypeVar("R")
Steps = Generator[None, None, R]  # something that stops after each step, and what it gives in the end


class Counting:
    """The questions that wait for the next round, and the round that is under way."""

    def __init__(self, shard: Shard[Any]) -> None:
        self._shard = shard
        self._waiting: dict[tuple[Any, int], Question[Any]] = {}  # by who asks, and the number of the request
        self._round: Steps[Replies] | None = None
        self._began = self._rest_until = 0.0

    def ask(self, asker: Any, m: Ask) -> None:
        """A question of COUNTED. Who asks again is answered once."""
        key = asker, m.req
        if len(self._waiting) < QUESTIONS or key in self._waiting:
            self._waiting[key] = m.question
        else:
            self._shard.dropped_questions += 1

    def begin(self, now: float) -> list[Effect]:
        """The first step of a round, if there is to be one. now: monotonic seconds, as everywhere here."""
        if not self._waiting or self._round or self._shard.is_rebuilding or now < self._rest_until:
            return []
        asked, self._waiting = self._waiting, {}
        self._began, self._round = now, self._count(asked)
        return self.go_on(now)

    def go_on(self, now: float) -> list[Effect]:
        """The next step, and what comes after it: another one, or the answers."""
        assert self._round
        try:
            next(self._round)
        except StopIteration as end:
            self._round = None
            self._rest_until = now + max(LEAST_REST_S, min(REST * (now - self._began), MOST_REST_S))
            return [end.value]
        return [CountOn()]

    def _count(self, asked: dict[tuple[Any, int], Question[Any]]) -> Steps[Replies]:
        directory = self._shard.directory
        rooms = {question.room for question in asked.values() if isinstance(question, RoomCount)}
        most = max((question.limit for question in asked.values() if isinstance(question, LargestRooms)), default=0)
        there = (yield from count_in_rooms(directory, rooms)) if rooms else {}
        largest = (yield from find_largest(directory, most)) if most else []
        reached: dict[int, Reached] = {}
        for question in asked.values():
            if isinstance(question, KickRoom):
                reached[id(question)] = yield from kick_room(self._shard, question)
        is_all = any(isinstance(question, OnlineCounts) for question in asked.values())
        sizes = (yield from size_rooms(directory)) if is_all else {}
        counts = Counts(sizes, directory.comets(), directory.roomless())

        def answer(question: Question[Any]) -> InRoom | RoomSizes | Counts | Reached:
            if isinstance(question, KickRoom):
                return reached[id(question)]
            if isinstance(question, OnlineCounts):
                return counts
            if isinstance(question, RoomCount):
                return there[question.room]
            assert isinstance(question, LargestRooms)
            return RoomSizes(largest[: question.limit])

        name = self._shard.name
        return Replies([(asker, Answered(req, name, answer(question))) for (asker, req), question in asked.items()])


def count_in_rooms(directory: Directory, rooms: set[str]) -> Steps[dict[str, InRoom]]:
    """How many sessions, and of how many users, are in each of these rooms. All are those of one moment, the first."""
    uids: dict[str, list[str]] = {room: [] for room in rooms}
    looked_at = 0
    for session in directory.sessions():
        looked_at += 1 + len(session.rooms)
        if not rooms.isdisjoint(session.rooms):
            for room in rooms.intersection(session.rooms):
                uids[room].append(session.uid)
        if looked_at >= STEP:
            looked_at = 0
            yield
    found: dict[str, InRoom] = {}
    for room, here in uids.items():
        users: set[str] = set()
        for at in range(0, len(here), STEP):
            part = here[at : at + STEP]
            users.update(part)
            looked_at += len(part)
            if looked_at >= STEP:
                looked_at = 0
                yield
        found[room] = InRoom(room, len(here), len(users))
    return found


def kick_room(shard: Shard[Any], question: KickRoom) -> Steps[Reached]:
    """Those who are in a room at the moment, the first, leave it, or the fabric."""
    why: Why | None = ("sent away" if question.returns else "kicked") if question.is_out_of_fabric else None
    feeds = shard.directory.feeds.values()
    there = [(feed, session) for feed in feeds for session in feed.sessions.values()]
    found = 0
    for at in range(0, len(there), STEP):
        if at:
            yield
        found += shard.control.kick_from(question.room, there[at : at + STEP], why, question.reason)
    return Reached(found)


def size_rooms(directory: Directory) -> Steps[dict[str, int]]:
    """How many sessions are in each room of this router. Each room is looked at when its turn comes."""
    streams = directory.room_streams()
    found: dict[str, int] = {}
    for at in range(0, len(streams), STEP_ROOMS):
        if at:
            yield
        sizes = [(room_of(s), directory.members(s)) for s in streams[at : at + STEP_ROOMS] if s != EVERYBODY]
        found.update((room, size) for room, size in sizes if size)
    return found


def find_largest(directory: Directory, most: int) -> Steps[list[RoomSize]]:
    """The largest rooms of this router, at most so many. Each room is looked at when its turn comes."""
    streams = directory.room_streams()
    best: list[tuple[int, str]] = []  # sessions below 0, so that what is first is largest; the room
    for at in range(0, len(streams), STEP_ROOMS):
        if at:
            yield
        sizes = [(-directory.members(s), room_of(s)) for s in streams[at : at + STEP_ROOMS] if s != EVERYBODY]
        best = sorted([*best, *(size for size in sizes if size[0])])[:most]
    return [RoomSize(room, -below) for below, room in best]

"""Who is in rooms: what is counted is what is there, in steps, for all who ask, and not all the time."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.answers import InRoom, RoomSize, RoomSizes
from zim.fabric.questions import LargestRooms, Question, RoomCount
from zim.fabric.sharding import Shards
from zim.fabric.tally import Tally
from zim.nodes.effects import Effect, Replies
from zim.nodes.router.counting import (
    LEAST_REST_S,
    MOST_REST_S,
    REST,
    STEP,
    STEP_ROOMS,
    Steps,
    count_in_rooms,
    find_largest,
    size_rooms,
)
from zim.nodes.router.directory import Directory
from zim.nodes.router.effects import CountOn
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import LEASE_S, QUESTIONS, Shard
from zim.nodes.router.shard_runner import ShardRunner
from zim.protocol.messages import Answered, Ask, Begin, Change, Changes, Del, Put, Room

R = TypeVar("R")

ROOMS = st.lists(st.sampled_from("abc"), max_size=3, unique=True).map(tuple)
SESSIONS = st.dictionaries(st.integers(1, 6), st.tuples(st.sampled_from("789"), ROOMS), max_size=6)


def end_of(steps: Steps[R]) -> tuple[R, int]:
    """What comes out, and after how many stops."""
    stops = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, stops
        stops += 1


def directory_of(*changes: Change, comet: str = "comet-1", to: Directory | None = None) -> Directory:
    directory = to or Directory(1)
    m = Changes("router-1", comet, 1, 1, [Begin(1, len(changes)), *changes])
    for change in m.changes:
        assert directory.apply(m, change, 9.0) is not None
    return directory


@given(st.lists(SESSIONS, min_size=2, max_size=2), st.lists(SESSIONS, min_size=2, max_size=2))
def test_what_is_counted_is_what_is_there(first: list[Any], then: list[Any]) -> None:
    """Sessions come, change their rooms, and go, at two comets."""
    directory = Directory(1)
    for comet, before, after in zip(("comet-1", "comet-2"), first, then, strict=True):
        steps = [(conn, *who) for sessions in (before, after) for conn, who in sessions.items()]
        changes: list[Change] = [Put(n, conn, uid, 0, rooms) for n, (conn, uid, rooms) in enumerate(steps, 2)]
        gone = enumerate(before.keys() - after.keys(), len(changes) + 2)
        directory_of(*changes, *(Del(n, conn) for n, conn in gone), comet=comet, to=directory)
    there = [who for sessions in then for who in sessions.values()]

    found, _ = end_of(count_in_rooms(directory, {"a", "b", "none"}))

    for room in ("a", "b", "none"):
        uids = [uid for uid, rooms in there if room in rooms]
        assert found[room] == InRoom(room, len(uids), len(set(uids)))
    directory.end(directory.feeds["comet-1"])
    uids = [uid for uid, rooms in then[1].values() if "a" in rooms]
    assert end_of(count_in_rooms(directory, {"a"}))[0] == {"a": InRoom("a", len(uids), len(set(uids)))}


@given(
    st.lists(st.dictionaries(st.sampled_from("abcdef*"), st.integers(0, 3)), min_size=2, max_size=2), st.integers(1, 7)
)
def test_the_largest_rooms_are_found(sizes: list[dict[str, int]], most: int) -> None:
    directory = Directory(1)
    for comet, of_it in zip(("comet-1", "comet-2"), sizes, strict=True):
        changes = [Room(n, room, members) for n, (room, members) in enumerate(of_it.items(), 2)]
        directory_of(*changes, comet=comet, to=directory)
    total = {room: sum(of_it.get(room, 0) for of_it in sizes) for room in "abcdef"}
    largest = sorted((-n, room) for room, n in total.items() if n)[:most]
    assert end_of(find_largest(directory, most))[0] == [RoomSize(room, -n) for n, room in largest]
    assert end_of(size_rooms(directory))[0] == {room: n for room, n in total.items() if n}


def test_no_step_looks_at_more_than_it_may() -> None:
    n = 3 * STEP
    directory = directory_of(*(Put(conn + 1, conn, str(conn // 2), 0, ("a",)) for conn in range(1, n + 1)))
    found, stops = end_of(count_in_rooms(directory, {"a"}))
    assert found == {"a": InRoom("a", n, n // 2 + 1)}
    assert stops >= 2 * n // STEP + n // STEP
    large = directory_of(*(Put(conn + 1, conn, "7", 0, (*map(str, range(STEP)),)) for conn in (1, 2, 3)))
    assert end_of(count_in_rooms(large, {"1"})) == ({"1": InRoom("1", 3, 1)}, 3)
    rooms = directory_of(*(Room(at + 2, f"{at}", 1 + at) for at in range(3 * STEP_ROOMS)))
    found_rooms, stops = end_of(find_largest(rooms, 2))
    assert [size.sessions for size in found_rooms] == [3 * STEP_ROOMS, 3 * STEP_ROOMS - 1]
    assert stops == 2
    sizes, stops = end_of(size_rooms(rooms))
    assert (len(sizes), stops) == (3 * STEP_ROOMS, 2)


def test_a_round_counts_one_moment_also_if_all_leave_meanwhile() -> None:
    directory = directory_of(*(Put(conn + 1, conn, str(conn), 0, ("a",)) for conn in range(1, STEP + 1)))
    steps = count_in_rooms(directory, {"a"})
    next(steps)
    directory.end(directory.feeds["comet-1"])
    assert end_of(steps)[0] == {"a": InRoom("a", STEP, STEP)}
    assert end_of(count_in_rooms(directory, {"a"}))[0] == {"a": InRoom("a", 0, 0)}


class Desk:
    """A router that one comet has told of its sessions, and those who ask it."""

    def __init__(self, sessions: int = 1, is_whole: bool = True) -> None:
        ledger = RouterLedger(Tally(), 0, 0, 0)
        self.shard: Shard[str] = Shard("router-1", 1, Shards(["router-1"]), ["comet-1"], 0.0, 1, 1, ledger)
        self.runner = ShardRunner(self.shard, LogClock(0, 0.0, 0.0), 1 << 40, {}, ["comet-1"], [], 0.0)
        if is_whole:
            puts: list[Change] = [Put(c + 1, c, str(c), 0, ("a",)) for c in range(1, sessions + 1)]
            changes = [Begin(1, sessions + 1), *puts, Room(sessions + 2, "a", sessions)]
            self.shard.changes(Changes("router-1", "comet-1", 1, 1, changes), 0.0)
            assert self.tick(0.0) == []

    def ask(self, question: Question[Any], peer: str = "logic-1", req: int = 0, now: float = 0.0) -> list[Effect]:
        """What comes of it at once."""
        asked = self.runner.on_messages(peer, [Ask("router-1", req, question)], now)  # type: ignore[arg-type]
        return [e for e in asked if isinstance(e, Replies | CountOn)]

    def tick(self, now: float) -> list[Effect]:
        return [e for e in self.runner.on_tick(now, 0.0) if isinstance(e, Replies | CountOn)]

    def answers(self, effects: list[Effect]) -> list[tuple[str, Any]]:
        return [answer for effect in effects if isinstance(effect, Replies) for answer in effect.answers]

    def settle(self, effects: list[Effect], now: float) -> list[tuple[str, Any]]:
        """The answers, once all steps are done."""
        while any(isinstance(effect, CountOn) for effect in effects):
            effects = self.runner.on_done(CountOn(), None, now)
        return self.answers(effects)


def test_the_first_who_asks_is_answered_at_once_and_all_who_wait_by_one_round() -> None:
    desk = Desk()
    assert desk.answers(desk.ask(RoomCount("a"), req=9)) == [("logic-1", Answered(9, "router-1", InRoom("a", 1, 1)))]
    assert desk.ask(RoomCount("a"), req=1) == []
    assert desk.ask(RoomCount("a"), "logic-2", req=1) == []
    assert desk.ask(RoomCount("none"), req=2) == []
    assert desk.ask(RoomCount("a"), req=1) == []  # again
    assert desk.ask(LargestRooms(1), req=3) == []
    assert desk.ask(LargestRooms(9), req=4) == []
    assert desk.settle(desk.tick(0.1), 0.1) == [
        ("logic-1", Answered(1, "router-1", InRoom("a", 1, 1))),
        ("logic-2", Answered(1, "router-1", InRoom("a", 1, 1))),
        ("logic-1", Answered(2, "router-1", InRoom("none", 0, 0))),
        ("logic-1", Answered(3, "router-1", RoomSizes([RoomSize("a", 1)]))),
        ("logic-1", Answered(4, "router-1", RoomSizes([RoomSize("a", 1)]))),
    ]
    assert desk.tick(0.2) == []


def test_who_asks_while_a_round_is_under_way_waits_for_the_next_which_rests_first() -> None:
    desk = Desk(2 * STEP)
    begun = desk.ask(RoomCount("a"), req=1, now=0.1)
    assert begun == [CountOn()]
    assert desk.ask(RoomCount("a"), req=2, now=0.11) == []
    assert desk.tick(0.11) == []
    assert [m.req for _, m in desk.settle(begun, 0.12)] == [1]
    assert desk.tick(0.12 + (REST - 1) * 0.02) == []
    later = desk.tick(0.13 + REST * 0.02)
    assert [m.req for _, m in desk.settle(later, 99.0)] == [2]  # a slow one
    assert desk.ask(RoomCount("a"), req=3, now=99.0) == []
    assert desk.tick(99.0 + MOST_REST_S / 2) == []
    assert [m.req for _, m in desk.settle(desk.tick(99.0 + MOST_REST_S), 100.1)] == [3]
    assert desk.ask(RoomCount("a"), req=4, now=100.1) == []
    assert [m.req for _, m in desk.settle(desk.tick(102.0), 102.0)] == [4]  # a quick one
    assert desk.ask(RoomCount("a"), req=5, now=102.0 + LEAST_REST_S / 2) == []
    assert desk.ask(RoomCount("a"), req=6, now=102.0 + LEAST_REST_S) == [CountOn()]


def test_while_the_directory_is_rebuilding_nobody_is_told_too_little() -> None:
    desk = Desk(is_whole=False)
    for at in range(QUESTIONS + 2):
        assert desk.ask(RoomCount("a"), req=at + 1) == []
    assert desk.shard.dropped_questions == 2
    assert desk.tick(0.1) == []
    told = [answer for at in range(1, 9) for answer in desk.settle(desk.tick(at * LEASE_S / 5), 1.0)]
    assert len(told) == QUESTIONS
    assert not desk.shard.is_rebuilding

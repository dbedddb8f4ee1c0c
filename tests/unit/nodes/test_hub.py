"""A comet's decisions, message by message; the simulator runs them in all weathers."""

from __future__ import annotations

from typing import Any

from zim.nodes.comet.hub import JOIN_S, Hub
from zim.nodes.comet.views import Session
from zim.protocol.client import Dialect
from zim.protocol.messages import Answer, Answers, Begin, Changes, Entry, Put, Renewed, Room


class Guest(Session):
    """A session that notes what it gets."""

    __slots__ = ("got",)

    def __init__(self, conn: int) -> None:
        super().__init__(conn, Dialect.V1_TCP)
        self.got: list[bytes] = []

    def opened(self) -> None:
        self.got.append(b"opened")

    def write(self, chunk: bytes) -> None:
        self.got.append(chunk[16:])


class Comet:
    """A hub, and the router that it talks to."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.hub = Hub("comet-1", 5, ["router-1"], self.send)
        self.n = 0

    def send(self, router: str, m: Any, size: int) -> bool:
        self.sent.append(m)
        return True

    def register(self, term: int, epoch: str, head: int) -> None:
        self.hub.tick(0.0, 1000)
        self.hub.renewed(Renewed("router-1", term, 5, 1 << 40, "register", 0, 5), 0.0)
        self.n = 0
        self.answer_all(term, epoch, head)

    def answer_all(self, term: int, epoch: str, head: int, seq: int = 1) -> None:
        changes = [c for m in self.sent if isinstance(m, Changes) for c in m.changes]
        self.sent.clear()
        answers = [
            Answer(c.n, 0, "" if isinstance(c, Begin) else epoch, head, seq if isinstance(c, Put) else 0)
            for c in changes
        ]
        self.hub.answers(Answers("router-1", term, 5, answers), 0.0)

    def entry(self, term: int, stream: str, offset: int, body: bytes) -> None:
        self.n += 1
        self.hub.entry(Entry("router-1", term, "comet-1", 5, self.n, "id", 5, body, [(stream, offset)]))

    def run(self) -> None:
        while todo := self.hub.next_pass(0.0):
            for sessions, chunk in todo.writes:
                for session in sessions:
                    session.write(chunk)
            self.hub.end_pass(todo, 0.0)


def test_a_session_opens_when_its_router_knows_it_and_gets_what_comes_then() -> None:
    comet, guest = Comet(), Guest(1)
    comet.register(1, "a", 7)
    comet.hub.join(guest, "3", ["9"], 0.0)
    comet.entry(1, "u:3", 8, b"early")
    comet.run()
    assert guest.got == []
    comet.answer_all(1, "a", 8)
    comet.entry(1, "u:3", 9, b"mine")
    comet.entry(1, "r:9", 9, b"room")
    comet.entry(1, "*", 8, b"all")
    comet.entry(1, "u:4", 9, b"another's")
    comet.run()
    assert guest.got == [b"opened", b"mine", b"room", b"all"]


def test_repeats_are_dropped_and_holes_waited_for() -> None:
    comet, guest = Comet(), Guest(1)
    comet.register(1, "a", 0)
    comet.hub.join(guest, "3", [], 0.0)
    comet.answer_all(1, "a", 0)
    comet.entry(1, "u:3", 1, b"one")
    comet.n += 1  # the second one is missing
    comet.entry(1, "u:3", 3, b"three")
    comet.run()
    assert guest.got == [b"opened", b"one"]
    comet.n = 0
    comet.entry(1, "u:3", 1, b"one")
    comet.entry(1, "u:3", 2, b"two")
    comet.run()
    assert b"".join(guest.got).count(b"one") == 1
    assert b"two" in guest.got[-1]
    assert b"three" in guest.got[-1]


def test_who_leaves_while_the_comet_registers_takes_no_answer_from_the_others() -> None:
    comet, first, second = Comet(), Guest(1), Guest(2)
    comet.register(1, "a", 0)
    for guest in (first, second):
        comet.hub.join(guest, "3", [], 0.0)
    comet.answer_all(1, "a", 50)
    comet.hub.tick(2.0, 1000)
    comet.hub.renewed(Renewed("router-1", 2, 5, 1 << 40, "register", 0, 5), 2.0)
    comet.hub.leave(first, 2.0)
    comet.n = 0
    comet.answer_all(2, "b", 0)
    comet.entry(2, "u:3", 1, b"new")
    comet.run()
    assert second.got == [b"opened", b"new"]
    third = Guest(3)
    comet.hub.join(third, "3", [], 2.0)
    comet.answer_all(2, "b", 1)
    assert third.got == [b"opened"]


def test_a_room_whose_router_is_away_does_not_fail_the_login() -> None:
    comet, guest = Comet(), Guest(1)
    comet.register(1, "a", 0)
    comet.hub.join(guest, "3", ["9"], 0.0)
    changes = [c for m in comet.sent if isinstance(m, Changes) for c in m.changes]
    put, room = next(c for c in changes if isinstance(c, Put)), next(c for c in changes if isinstance(c, Room))
    comet.hub.answers(Answers("router-1", 1, 5, [Answer(put.n, 0, "a", 0, 1)]), 0.0)
    assert guest.got == []
    comet.hub.tick(JOIN_S + 0.1, 1000)
    assert guest.got == [b"opened"]
    comet.hub.answers(Answers("router-1", 1, 5, [Answer(room.n, 0, "a", 4, 0)]), JOIN_S + 0.2)
    comet.entry(1, "r:9", 5, b"room")
    comet.run()
    assert guest.got == [b"opened", b"room"]


def test_a_later_run_of_this_comet_fences_it() -> None:
    comet = Comet()
    assert comet.hub.renewed(Renewed("router-1", 1, 5, 1, "fenced", 0, 6), 0.0) == 6

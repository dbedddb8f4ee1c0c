"""Where a session starts in its streams: fresh, with what it has, ahead of its comet, without a router."""

from __future__ import annotations

import pytest

from tests.unit.nodes.comet.comets import Comet, numbers, with_history
from tests.wires import GOIM_TCP
from zim.nodes.comet.feed import RENEW_S
from zim.nodes.comet.hub import JOIN_S
from zim.nodes.comet.views import QUEUE_BYTES
from zim.protocol.messages import Read
from zim.protocol.vocabularies.base import Start
from zim.protocol.vocabularies.zim import RETRYING


def test_who_has_nothing_starts_at_the_position() -> None:
    comet, _ = with_history(3)
    guest = comet.enter("2", ["9"])
    assert guest.starts == {"u:2": Start("u:2", "a", 0), "*": Start("*", "a", 0), "r:9": Start("r:9", "a", 3)}
    comet.push("r:9", body="4")
    assert guest.got == ["opened", "4"]


@pytest.mark.parametrize("has", [0, 1, 12, 13, 14, 25, 28, 29, 30])
def test_resume_brings_what_is_missing_page_by_page_then_live(has: int) -> None:
    comet, _ = with_history(30)  # a page holds thirteen
    guest = comet.enter("2", ["9"], {"r:9": ("a", has)})
    assert guest.starts["r:9"] == Start("r:9", "a", has)
    comet.push("r:9", body="31")
    assert guest.got == ["opened", *numbers(has + 1, 31)]
    assert guest.offsets["r:9"] == list(range(has + 1, 32))


def test_resume_goes_on_while_live_messages_arrive() -> None:
    comet, first = with_history(100)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 20)}))
    n = 100
    while len(guest.bodies) < n - 20:
        n += 1
        assert n < 200, "it never catches up"
        comet.router.publish("r:9", body=str(n))
        inbox, comet.router.inbox = comet.router.inbox, []
        comet.receive()
        comet.run()  # everything that is there; the router answers one question a turn
        for m in inbox:
            comet._take(comet.router.answer(m))
        comet.run()
    assert guest.bodies == numbers(21, n)
    assert first.bodies == numbers(1, n)


def test_live_messages_arrive_while_a_page_goes_out() -> None:
    comet, _ = with_history(5)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 2)}))
    comet.hear()
    assert guest.got == ["opened"]
    page = comet.begin_pass()
    for n in (6, 7):
        comet.router.publish("r:9", body=str(n))
    comet.receive()
    comet.end_pass(page)
    comet.settle()
    assert guest.got == ["opened", *numbers(3, 7)]


def test_a_page_that_is_older_than_the_position_is_not_taken_for_the_end() -> None:
    comet, first = with_history(5)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 3)}))
    changes, reads = ([m for m in comet.router.inbox if isinstance(m, Read) == kind] for kind in (False, True))
    comet.router.inbox = reads
    comet.hear()  # the page is there, the session's key is not
    assert guest.got == []
    for n in (6, 7, 8):
        comet.push("r:9", body=str(n))
    comet.router.inbox = changes
    comet.settle()
    comet.push("r:9", body="9")
    assert guest.got == ["opened", *numbers(4, 9)]
    assert first.bodies == numbers(1, 9)


def test_a_page_that_is_older_than_a_router_that_came_back_is_not_taken_for_the_end() -> None:
    comet, first = with_history(5)
    comet.router.publish("r:9", body="6")
    comet.receive()
    todo = comet.begin_pass()
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 3)}))
    comet.hear()  # its page waits for the end of the pass
    assert guest.got == ["opened"]
    comet.restart_router(comet.router)
    for n in (7, 8):
        comet.router.append("r:9", str(n))
    comet.now += RENEW_S
    comet.do(comet.hub.on_tick(comet.now, 1_000_000))
    comet.hear()
    comet.end_pass(todo)
    comet.settle()
    comet.push("r:9", body="9")
    assert guest.got == ["opened", *numbers(4, 9)]
    assert first.bodies == numbers(1, 9)


def test_who_queues_too_much_reads_it_instead() -> None:
    comet, _ = with_history(3)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 0)}))
    comet.hear()
    page = comet.begin_pass()
    comet.end_pass(page)
    body = "x" * (QUEUE_BYTES // 8)
    for _ in range(20):
        comet.push("r:9", body=body)
    comet.settle()
    comet.push("r:9", body="last")
    assert guest.offsets["r:9"] == list(range(1, 25))
    assert guest.gaps == []


def test_who_reads_slowly_gets_a_page_at_a_time() -> None:
    comet, first = with_history(40)
    guest = comet.guest()
    guest.reads = False
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 0)}))
    for n in range(41, 51):
        comet.push("r:9", body=str(n))
        before = len(guest.bodies)
        guest.fills = guest.reads = True
        comet.tick(RENEW_S)
        assert before <= len(guest.bodies) <= before + 13
    guest.fills, guest.reads = False, True
    comet.tick(RENEW_S)
    assert guest.bodies == first.bodies == numbers(1, 50)


def test_nothing_goes_to_a_full_socket_of_who_resumes() -> None:
    comet, _ = with_history(40)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 0)}))
    guest.reads = False
    for n in range(41, 44):
        comet.push("r:9", body=str(n))
        comet.settle()
        comet.tick(RENEW_S)
    assert guest.got == ["opened"]
    guest.reads = True
    comet.tick(RENEW_S)
    comet.push("r:9", body="44")
    assert guest.bodies == numbers(1, 44)


def test_who_is_slow_after_a_router_came_back_slows_nobody() -> None:
    comet = Comet()
    guests = [comet.enter(uid, ["9"]) for uid in "1234"]
    comet.push("r:9", body="1")
    for guest in guests[:2]:
        guest.reads = False
    comet.restart_router(comet.router)
    for n in range(2, 40):
        comet.router.append("r:9", str(n))
    comet.tick(RENEW_S)
    comet.push("r:9", body="40")
    assert [len(guest.bodies) for guest in guests] == [1, 1, 40, 40]
    for guest in guests[:2]:
        guest.reads = True
        comet.tick(RENEW_S)
        assert guest.bodies == numbers(1, 40)
    comet.push("r:9", body="41")
    assert [guest.bodies for guest in guests] == [numbers(1, 41)] * 4


def test_resume_of_several_streams_at_once() -> None:
    comet = Comet()
    comet.enter("2", ["9"])
    comet.push("u:2", "r:9", "*", body="1")
    comet.push("u:2", "r:9", "*", body="2")
    guest = comet.enter("2", ["9"], {"u:2": ("a", 0), "r:9": ("a", 1), "*": ("a", 2)})
    comet.push("u:2", "r:9", "*", body="3")
    assert guest.offsets == {"u:2": [1, 2, 3], "r:9": [2, 3], "*": [3]}


def test_a_stream_that_it_is_not_in_is_not_resumed() -> None:
    comet, _ = with_history(3)
    guest = comet.enter("2", [], {"r:9": ("a", 0), "u:1": ("a", 0), "nonsense": ("", 5)})
    assert set(guest.starts) == {"u:2", "*"}
    assert guest.bodies == []


def test_a_client_that_is_ahead_of_its_comet_gets_nothing_twice() -> None:
    comet, first = with_history(2)
    for n in (3, 4, 5):
        comet.router.publish("r:9", body=str(n))  # on their way; the client has them from another comet
    pipe, comet.router.pipe = comet.router.pipe, []
    guest = comet.enter("2", ["9"], {"r:9": ("a", 4)})
    assert guest.starts["r:9"] == Start("r:9", "a", 4)
    comet.router.pipe = pipe
    comet.settle()
    comet.push("r:9", body="6")
    assert guest.got == ["opened", "5", "6"]
    assert first.bodies == numbers(1, 6)


def test_a_client_that_is_ahead_of_its_router_is_told_so() -> None:
    comet, _ = with_history(3)
    guest = comet.enter("2", ["9"], {"r:9": ("a", 7)})
    assert guest.starts["r:9"] == Start("r:9", "a", 3, recovered=False)
    comet.push("r:9", body="4")
    assert guest.bodies == ["4"]


def test_another_epoch_is_not_recovered() -> None:
    comet, _ = with_history(3)
    guest = comet.enter("2", ["9"], {"r:9": ("b", 1)})
    assert guest.starts["r:9"] == Start("r:9", "a", 3, recovered=False)
    comet.push("r:9", body="4")
    assert guest.bodies == ["4"]


def test_who_has_the_epoch_that_the_comet_has_not_heard_of_gets_nothing_twice() -> None:
    """The comet is cut off while a router gets another log; its client comes from a comet that was not."""
    comet = Comet(routers=2)
    room = next(str(n) for n in range(99) if comet.owner(f"r:{n}") is not comet.owner("u:3"))
    stream, away = f"r:{room}", comet.owner(f"r:{room}")
    comet.enter("3", [room])
    comet.push(stream, body="1")
    away.is_away = True
    comet.restart_router(away, "b")
    for n in (4, 5, 6):
        away.append(stream, str(n))
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "3", [room], comet.now, {stream: ("b", 2)}))
    comet.settle()
    comet.tick(JOIN_S + 0.1)
    assert guest.starts[stream] == Start(stream, error=RETRYING)
    away.is_away = False
    for _ in range(4):
        comet.tick(RENEW_S)
    comet.push(stream, body="7")
    assert guest.starts[stream] == Start(stream, "b", 2)
    assert guest.bodies == ["6", "7"]


@pytest.mark.parametrize(("has", "start"), [(0, 6), (3, 6), (5, 6), (6, 6), (8, 8), (10, 10)])
def test_where_retention_has_passed_it_starts_at_the_floor(has: int, start: int) -> None:
    comet, _ = with_history(10)
    comet.router.trim(4)
    guest = comet.enter("2", ["9"], {"r:9": ("a", has)})
    assert guest.starts["r:9"] == Start("r:9", "a", start, recovered=has == start)
    comet.push("r:9", body="11")
    assert guest.got == ["opened", *numbers(start + 1, 11)]


def test_what_is_trimmed_during_a_resume_is_told() -> None:
    comet, _ = with_history(40)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 0)}))
    comet.hear()
    assert guest.starts["r:9"].recovered
    comet.router.trim(5)
    comet.settle()
    page = guest.bodies.index("36")  # up to there the first page, which was read before
    assert guest.got == ["opened", *numbers(1, page), f"gap {page + 1}-35 trimmed", *numbers(36, 40)]
    comet.push("r:9", body="41")
    assert guest.bodies[-1] == "41"


@pytest.mark.parametrize("is_told", [True, False])
def test_a_router_that_restarts_during_a_resume_loses_nothing(is_told: bool) -> None:
    comet, first = with_history(40)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 10)}))
    comet.hear()
    comet.restart_router(comet.router)
    if is_told:
        comet.run()
    comet.router.append("r:9", "41")
    comet.tick(RENEW_S)
    comet.tick(RENEW_S)
    comet.push("r:9", body="42")
    comet.tick(RENEW_S)  # a page that brought nothing is asked for again a little later
    assert guest.bodies == numbers(11, 42)
    assert first.bodies == numbers(1, 42)


# ---------------------------------------------------------------- the user's own stream


def test_a_client_of_zim_gets_what_its_user_has_not_acknowledged() -> None:
    comet = Comet()
    for n in range(1, 6):
        comet.router.append("u:2", str(n))
    comet.router.log.acknowledge(comet.router.lease, {"u:2": 3})
    guest = comet.enter("2")
    assert guest.starts["u:2"] == Start("u:2", "a", 3)
    assert guest.got == ["opened", "4", "5"]


def test_a_goim_client_starts_with_what_comes() -> None:
    comet = Comet()
    comet.router.append("u:2", "1")
    guest = comet.enter("2", speech=GOIM_TCP)
    comet.push("u:2", body="2")
    assert guest.bodies == ["2"]


def test_resume_goes_before_the_cursor() -> None:
    comet = Comet()
    for n in range(1, 6):
        comet.router.append("u:2", str(n))
    comet.router.log.acknowledge(comet.router.lease, {"u:2": 4})
    assert comet.enter("2", resume={"u:2": ("a", 2)}).bodies == ["3", "4", "5"]
    assert comet.enter("2", resume={"u:2": ("a", 5)}).bodies == []


def test_the_second_session_of_a_user_starts_at_the_cursor_too() -> None:
    comet = Comet()
    for n in range(1, 4):
        comet.router.append("u:2", str(n))
    here, there = comet.enter("2"), comet.enter("2")
    assert here.bodies == there.bodies == ["1", "2", "3"]
    comet.do(comet.hub.acknowledge(here, 2, 0.0))
    comet.settle()
    third = comet.enter("2")
    assert third.bodies == ["3"]
    comet.push("u:2", body="4")
    assert here.bodies == there.bodies == numbers(1, 4)
    assert third.bodies == ["3", "4"]


def test_a_cursor_that_moved_at_another_comet_counts() -> None:
    comet = Comet()
    for n in range(1, 4):
        comet.router.append("u:2", str(n))
    comet.enter("2")
    comet.router.log.acknowledge(comet.router.lease, {"u:2": 3})
    assert comet.enter("2").bodies == []


def test_a_cursor_that_is_ahead_of_this_comet_counts() -> None:
    """The user's other device is at a comet that has handed out more."""
    comet = Comet()
    here = comet.enter("2")
    for n in range(1, 4):
        comet.router.publish("u:2", body=str(n))  # the entries are still in the pipe
    comet.router.log.acknowledge(comet.router.lease, {"u:2": 2})
    new = comet.enter("2")
    assert new.starts["u:2"] == Start("u:2", "a", 2)
    comet.receive()
    comet.settle()
    assert here.bodies == numbers(1, 3)
    assert new.bodies == ["3"]


def test_a_stream_that_is_live_only_has_no_offline_messages() -> None:
    comet = Comet(epoch="")
    comet.router.append("u:2", "1")
    guest = comet.enter("2")
    assert (guest.starts["u:2"].offset, guest.starts["u:2"].recovered) == (1, True)
    comet.push("u:2", body="2")
    assert guest.bodies == ["2"]


def test_two_sessions_that_come_together_each_get_all() -> None:
    comet = Comet()
    comet.router.append("u:2", "1")
    guests = [comet.guest(), comet.guest()]
    for guest in guests:
        comet.do(comet.hub.join(guest, "2", ["9"], 0.0))
    comet.router.append("u:2", "2")
    comet.settle()
    comet.push("u:2", body="3")
    assert [guest.got for guest in guests] == [["opened", "1", "2", "3"]] * 2
    assert guests[0].key != guests[1].key


# ---------------------------------------------------------------- a router that is away


def test_a_room_whose_router_is_away_does_not_fail_the_login() -> None:
    comet = Comet(routers=2)
    room = next(str(n) for n in range(99) if comet.owner(f"r:{n}") is not comet.owner("u:3"))
    stream, away = f"r:{room}", comet.owner(f"r:{room}")
    away.append(stream, "old")
    away.is_away = True
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "3", [room], 0.0))
    comet.settle()
    assert guest.got == []
    comet.tick(JOIN_S + 0.1)
    assert guest.got == ["opened"]
    assert guest.starts[stream] == Start(stream, error=RETRYING)
    away.is_away = False
    comet.tick(1.0)
    assert guest.got == ["opened", "joined 0"]
    assert guest.starts[stream] == Start(stream, "a", 1)
    comet.push(stream, body="new")
    assert guest.bodies == ["new"]


def test_a_goim_client_is_not_opened_before_it_is_in_its_rooms() -> None:
    comet = Comet(routers=2)
    room = next(str(n) for n in range(99) if comet.owner(f"r:{n}") is not comet.owner("u:3"))
    away = comet.owner(f"r:{room}")
    away.is_away = True
    guest = comet.guest(GOIM_TCP)
    comet.do(comet.hub.join(guest, "3", [room], 0.0))
    comet.tick(JOIN_S + 0.1)
    assert guest.got == []
    away.is_away = False
    comet.tick(1.0)
    comet.push(f"r:{room}", body="new")
    assert guest.got == ["opened", "new"]


def test_nobody_opens_without_a_key() -> None:
    comet = Comet()
    comet.router.is_away = True
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "3", [], 0.0))
    comet.tick(JOIN_S + 5)
    assert guest.got == []
    comet.router.is_away = False
    comet.tick(1.0)
    assert guest.got == ["opened"]
    assert guest.key == "3_1"


def test_who_leaves_before_the_answer_is_no_trouble() -> None:
    comet = Comet()
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "3", ["9"], 0.0, {"r:9": ("a", 5)}))
    comet.do(comet.hub.leave(guest, 0.0))
    comet.tick(JOIN_S + 0.1)
    comet.push("r:9", body="x")
    assert guest.got == []
    assert comet.hub.sessions == {}


def test_nobody_starts_in_a_stream_that_its_router_refuses() -> None:
    """The topologies differ. When they are the same again, that router or this comet has been started anew."""
    comet = Comet()
    router = comet.router
    router.refuses.add("u:7")
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "7", [], comet.now))
    comet.settle()
    assert (guest.starts, guest.seq) == ({}, 0)
    assert comet.notes[1:] == ["a router refuses a stream: the topologies differ"]
    router.refuses.clear()
    comet.restart_router(router)
    comet.tick(RENEW_S)
    assert guest.starts["u:7"].epoch == "a"
    key = guest.key
    router.refuses.add("u:7")
    comet.restart_router(router)
    comet.tick(RENEW_S)
    assert (guest.key, key) == ("7_1", "7_1")  # it stays who it is

"""A comet's decisions, message by message; the simulator runs them in all weathers."""

from __future__ import annotations

import pytest

from tests.unit.nodes.comet.comets import INC, Comet
from tests.wires import GOIM_TCP, ZIM_TCP
from zim.nodes.comet.feed import QUIET_S, RENEW_S, RETRY_S
from zim.protocol.messages import Changes, Fetch, Put, Read, Renew, Renewed, Room
from zim.protocol.speech import Speech


def test_a_session_opens_when_its_router_knows_it_and_gets_what_comes_then() -> None:
    comet = Comet()
    for _ in range(7):
        comet.push("u:3", body="old")
    guest = comet.guest(GOIM_TCP)
    comet.do(comet.hub.join(guest, "3", ["9"], 0.0))
    comet.push("u:3", body="early")
    assert guest.got == []
    comet.hear()
    comet.push("u:3", body="mine")
    comet.push("r:9", body="room")
    comet.push("*", body="all")
    comet.push("u:4", body="another's")
    assert guest.got == ["opened", "mine", "room", "all"]


def test_repeats_are_dropped_and_holes_waited_for() -> None:
    comet = Comet()
    guest = comet.enter()
    comet.push("u:3", body="one")
    for body in ("two", "three"):
        comet.router.publish("u:3", body=body)
    two, three = comet.router.pipe
    comet.router.pipe = [three]
    comet.settle()
    assert guest.bodies == ["one"]
    comet.router.pipe = [three, two, two, three]
    comet.settle()
    assert guest.bodies == ["one", "two", "three"]


def test_a_hole_is_fetched_once_it_has_stood_for_a_while() -> None:
    comet = Comet()
    comet.enter()
    for n in range(4):
        comet.router.publish("u:3", body=str(n))
    comet.router.pipe = [comet.router.pipe[2]]
    comet.receive()
    comet.do(comet.hub.on_tick(comet.now, 1_000_000))
    assert not any(isinstance(m, Fetch) for m in comet.router.inbox)
    comet.do(comet.hub.on_tick(comet.now + QUIET_S, 1_000_000))
    (fetch,) = [m for m in comet.router.inbox if isinstance(m, Fetch)]
    assert (fetch.low, fetch.high) == (1, 2)


def test_who_leaves_while_the_comet_registers_takes_no_answer_from_the_others() -> None:
    comet = Comet()
    first, second = comet.enter(), comet.enter()
    for _ in range(50):
        comet.push("u:3", body="old")
    comet.restart_router(comet.router, "b")
    comet.now += 2.0
    comet.do(comet.hub.on_message(Renewed("router-1", comet.router.term, INC, 1 << 40, "register", 0, INC), comet.now))
    comet.do(comet.hub.leave(first, comet.now))
    comet.hear()
    comet.push("u:3", body="new")
    assert second.bodies[-1] == "new"
    assert comet.enter().is_open


@pytest.mark.parametrize("speech", [GOIM_TCP, ZIM_TCP], ids=str)
def test_another_history_is_told(speech: Speech) -> None:
    comet = Comet()
    guest = comet.enter(rooms=["9"], speech=speech)
    comet.push("r:9", body="old")
    comet.restart_router(comet.router, "b")
    for _ in range(5):
        comet.router.append("r:9", "before we knew")
    comet.tick(RENEW_S)
    (gap,) = [gap for gap in guest.kept if gap.stream == "r:9"]
    assert (gap.epoch, gap.first, gap.last, gap.reason) == ("b", 0, 5, "epoch")
    comet.push("r:9", body="new")
    assert guest.bodies == ["old", "new"]


def test_a_live_only_streams_new_history_is_read_from_its_start() -> None:
    comet = Comet(epoch="")
    guest = comet.enter(rooms=["9"])
    comet.push("r:9", body="old")
    comet.restart_router(comet.router)
    for body in ("one", "two"):
        comet.router.append("r:9", body)
    comet.tick(RENEW_S)
    assert guest.kept == []
    assert [(g.first, g.last, g.reason) for g in guest.gaps if g.stream == "r:9"] == [(0, 0, "epoch")]
    comet.push("r:9", body="three")
    assert guest.bodies == ["old", "one", "two", "three"]
    assert guest.offsets["r:9"] == [1, 1, 2, 3]


def test_what_came_while_a_router_was_away_is_read() -> None:
    comet = Comet()
    guest = comet.enter(rooms=["9"])
    comet.push("r:9", body="one")
    comet.restart_router(comet.router)
    for body in ("two", "three"):
        comet.router.append("r:9", body)
    comet.tick(RENEW_S)
    comet.push("r:9", body="four")
    assert guest.got == ["opened", "one", "two", "three", "four"]
    assert guest.offsets["r:9"] == [1, 2, 3, 4]


def test_what_is_lost_with_retention_while_a_router_was_away_is_told() -> None:
    comet = Comet()
    guest = comet.enter(rooms=["9"])
    comet.push("r:9", body="one")
    comet.restart_router(comet.router)
    for n in range(2, 7):
        comet.router.append("r:9", str(n))
    comet.router.trim(2)
    comet.tick(RENEW_S)
    assert guest.got == ["opened", "one", "gap 2-4 trimmed", "5", "6"]
    assert guest.kept == guest.gaps


def test_no_entry_is_handled_while_the_comet_registers() -> None:
    comet = Comet()
    guest = comet.enter()
    comet.restart_router(comet.router)
    comet.router.is_away = True
    comet.do(comet.hub.on_message(Renewed("router-1", comet.router.term, INC, 1 << 40, "register", 0, INC), comet.now))
    comet.push("u:3", body="too early")
    assert guest.bodies == []
    assert not comet.hub.links.is_registered()
    comet.router.is_away = False
    comet.tick(RETRY_S + 0.1)
    assert comet.hub.links.is_registered()
    assert guest.bodies == ["too early"]  # read, for its head was in the answer


def test_a_router_that_does_not_answer_is_said_once_and_not_after_a_standstill_of_our_own() -> None:
    comet = Comet()
    (link,) = comet.hub.links.values()
    comet.tick(RENEW_S)
    comet.now += 60.0
    comet.do(comet.hub.on_tick(comet.now, 1_000_000))  # we stood still: its answers are not read yet
    assert not link.hearing.is_silent
    comet.settle()
    comet.router.is_away = True
    for _ in range(5):
        comet.tick(RENEW_S)
    assert link.hearing.is_silent
    comet.router.is_away = False
    comet.tick(RENEW_S)
    comet.tick(RENEW_S)
    assert not link.hearing.is_silent
    assert [note for note in comet.notes if "answer" in note] == ["a router does not answer", "a router answers again"]


def test_changes_are_repeated_until_they_are_answered() -> None:
    comet = Comet()
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "3", ["9"], 0.0))
    lost, comet.router.inbox = comet.router.inbox, []
    comet.do(comet.hub.on_tick(RETRY_S + 0.1, 1_000_000))
    again = [m for m in comet.router.inbox if isinstance(m, Changes)]
    assert [c for m in again for c in m.changes] == [c for m in lost if isinstance(m, Changes) for c in m.changes]
    comet.settle()
    assert guest.got == ["opened"]


def test_a_change_is_repeated_while_others_are_answered() -> None:
    comet = Comet()
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "3", ["9"], 0.0))
    comet.router.inbox.clear()
    for n in range(8):  # never so long without an answer that everything would be repeated
        comet.tick(RETRY_S / 4)
        assert guest.got == ([] if n < 5 else ["opened"])
        comet.enter(uid=f"other-{n}")


def test_a_change_that_is_overtaken_is_repeated_at_a_pace() -> None:
    comet = Comet()
    comet.do(comet.hub.join(comet.guest(), "3", ["9"], 0.0))
    comet.router.inbox.clear()
    comet.enter(uid="other")
    sent = 0
    for _ in range(40):
        comet.now += RETRY_S / 10
        comet.do(comet.hub.on_tick(comet.now, 1 << 20))
        sent += sum(isinstance(m, Changes) for m in comet.router.inbox)
        comet.router.inbox.clear()
    assert 2 <= sent <= 4


def test_a_question_that_gets_no_answer_is_asked_again() -> None:
    comet = Comet()
    first = comet.enter(rooms=["9"])
    for n in range(3):
        comet.push("r:9", body=str(n))
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "4", ["9"], 0.0, {"r:9": ("a", 1)}))
    comet.router.inbox = [m for m in comet.router.inbox if not isinstance(m, Read)]
    comet.settle()
    assert guest.got == []
    comet.tick(RETRY_S + 0.1)
    assert guest.got == ["opened", "1", "2"]
    assert first.bodies == ["0", "1", "2"]


def test_a_later_run_of_this_comet_fences_it() -> None:
    comet = Comet()
    comet.do(comet.hub.on_message(Renewed("router-1", 1, INC, 1, "fenced", 0, INC + 1), 0.0))
    assert comet.replaced_by == INC + 1


def test_what_a_stranger_says_is_passed_over() -> None:
    comet = Comet()
    guest = comet.enter()
    comet.router.publish("u:3", body="x")
    (entry,) = comet.router.pipe
    comet.router.pipe = []
    for field, value in (("shard", "router-9"), ("begin", 99), ("inc", 99)):
        values = {f: getattr(entry, f) for f in entry.__struct_fields__} | {field: value}
        comet.do(comet.hub.on_message(type(entry)(**values), 0.0))
    assert comet.hub.on_message(Renewed("router-9", 1, INC, 1, "register", 0, INC), 0.0) == []
    comet.run()
    assert guest.bodies == []


def test_the_directory_is_told_of_rooms_and_members() -> None:
    comet = Comet()
    guest, other = comet.guest(), comet.guest()
    comet.do(comet.hub.join(guest, "3", ["9", "9", "8"], 0.0))
    comet.do(comet.hub.join(other, "4", ["9"], 0.0))
    changes = [c for m in comet.router.inbox if isinstance(m, Changes) for c in m.changes]
    assert [(c.uid, c.rooms) for c in changes if isinstance(c, Put)] == [("3", ("9", "8")), ("4", ("9",))]
    assert [(c.room, c.members) for c in changes if isinstance(c, Room)] == [("9", 1), ("8", 1), ("9", 2)]
    comet.settle()
    comet.do(comet.hub.leave(guest, 0.0))
    changes = [c for m in comet.router.inbox if isinstance(m, Changes) for c in m.changes]
    assert [(c.room, c.members) for c in changes if isinstance(c, Room)] == [("9", 1), ("8", 0)]


def test_a_cursor_moves_and_is_asked_for_until_it_has() -> None:
    comet = Comet()
    guest = comet.enter()
    for n in range(3):
        comet.push("u:3", body=str(n))
    comet.do(comet.hub.acknowledge(guest, 2, comet.now))
    comet.router.inbox.clear()
    comet.tick(RETRY_S + 0.1)
    assert guest.acknowledgements == [("u:3", 2)]
    comet.do(comet.hub.acknowledge(guest, 1, comet.now))
    comet.do(comet.hub.acknowledge(guest, 99, comet.now))
    comet.settle()
    assert guest.acknowledgements == [("u:3", 2), ("u:3", 3)]  # one is under way at a time


# ---------------------------------------------------------------- what becomes of pushes


def result(comet: Comet, n: int) -> tuple[int, int, int, int, int]:
    """What the router has heard of an entry: targeted, delivered, gone, shed, expired."""
    comet.tick(RENEW_S)
    r = comet.router.results[n]
    return r.targeted, r.delivered, r.gone, r.shed, r.expired


def test_delivered_gone_and_shed_are_counted_in_sessions() -> None:
    comet = Comet()
    guests = [comet.enter(uid, ["9"]) for uid in "12345"]
    for guest, takes in zip(guests, ("delivered", "delivered", "gone", "shed", "later"), strict=True):
        guest.takes = takes
    n = comet.push("r:9", body="x")
    assert result(comet, n) == (5, 2, 1, 1, 0)
    guests[4].rows[0].settle("delivered")
    assert result(comet, n) == (5, 3, 1, 1, 0)


def test_a_push_to_several_streams_is_one_row() -> None:
    comet = Comet()
    comet.enter("1", ["9"])
    comet.enter("2")
    n = comet.push("r:9", "u:1", "u:2", "u:77", "*", body="x")
    assert result(comet, n) == (5, 5, 0, 0, 0)


def test_a_push_that_nobody_is_there_for_has_a_row_of_zeros() -> None:
    comet = Comet()
    comet.enter("1")
    n = comet.push("r:9", body="x")
    assert result(comet, n) == (0, 0, 0, 0, 0)


def test_past_its_ttl_a_push_is_passed_over_and_counted() -> None:
    comet = Comet()
    guest = comet.enter(rooms=["9"])
    n = comet.router.publish("r:9", body="late", expires_ms=comet.router.clock() + 500)
    comet.receive()
    comet.now += 0.6
    comet.run()
    in_time = comet.push("r:9", body="in time", expires_ms=comet.router.clock() + 500)
    over = comet.push("r:9", body="over already", expires_ms=comet.router.clock() - 1)
    assert guest.bodies == ["in time"]
    assert result(comet, n) == result(comet, over) == (1, 0, 0, 0, 1)
    assert result(comet, in_time) == (1, 1, 0, 0, 0)


def test_a_push_with_a_ttl_goes_alone_and_says_until_when() -> None:
    comet = Comet()
    comet.enter(rooms=["9"])
    comet.router.publish("r:9", body="for ever")
    comet.router.publish("r:9", body="a while", expires_ms=comet.router.clock() + 500)
    comet.receive()
    first, second = comet.begin_pass().writes
    assert (first.until, second.is_late(comet.now)) == (0.0, False)
    assert comet.now + 0.4 < second.until <= comet.now + 0.5
    assert second.is_late(comet.now + 0.5)


def test_what_queued_while_somebody_read_is_not_sent_late() -> None:
    comet = Comet()
    for n in range(1, 4):
        comet.router.append("u:2", str(n))
    here = comet.enter("2")
    late = comet.guest()
    comet.do(comet.hub.join(late, "2", [], comet.now, {"u:2": ("a", 0)}))
    comet.push("u:2", body="short", expires_ms=comet.router.clock() + 100)
    comet.now += 0.2
    comet.settle()
    assert here.bodies[-1] == "short"
    assert late.bodies == ["1", "2", "3"]


def test_results_are_told_again_until_the_router_has_heard() -> None:
    comet = Comet()
    guest = comet.enter()
    comet.router.hears_results = False
    n = comet.push("u:3", body="x")
    for _ in range(3):
        comet.tick(RENEW_S)
        assert [r.n for r in comet.router.told] == [n]
    comet.router.hears_results = True
    comet.tick(RENEW_S)
    assert [r.n for r in comet.router.told] == [n]
    comet.tick(RENEW_S)
    assert comet.router.told == []
    guest.takes = "later"
    n = comet.push("u:3", body="y")
    comet.tick(RENEW_S)
    guest.rows[0].settle("gone")
    comet.tick(RENEW_S)
    assert [(r.n, r.targeted, r.gone) for r in comet.router.told] == [(n, 1, 1)]


def test_a_new_registration_says_nothing_of_old_entries() -> None:
    comet = Comet()
    guest = comet.enter()
    guest.takes = "later"
    comet.push("u:3", body="x")
    comet.restart_router(comet.router)
    comet.tick(RENEW_S)
    guest.rows[0].settle("delivered")
    comet.tick(RENEW_S)
    assert comet.router.told == []


def test_renew_says_what_is_handled_when_the_pass_is_over() -> None:
    comet = Comet()
    comet.enter()
    comet.router.publish("u:3", body="x")
    comet.receive()
    todo = comet.begin_pass()
    assert _renewed(comet) == 0
    comet.end_pass(todo)
    assert _renewed(comet) == 1


def _renewed(comet: Comet) -> int:
    comet.now += RENEW_S
    comet.do(comet.hub.on_tick(comet.now, 1_000_000))
    (renew,) = [m for m in comet.router.inbox if isinstance(m, Renew)]
    comet.hear()
    return renew.handled


def test_in_a_pass_what_is_for_few_goes_first() -> None:
    """A room's writes take long where it is large, and nobody waits long for a few others."""
    comet = Comet()
    members = [comet.enter(f"1{n}", ["9"]) for n in range(5)]
    alone = comet.enter("7")
    comet.owner("r:9").publish("r:9", body="1")
    comet.owner("u:7").publish("u:7", body="2")
    comet.owner("r:9").publish("r:9", body="3")
    comet.receive()
    todo = comet.hub.passes.next(comet.now)
    assert todo is not None
    assert [len(write.sessions) for write in todo.writes] == [1, 5]
    comet.end_pass(todo)
    assert alone.bodies == ["2"]
    assert all(member.bodies == ["1", "3"] for member in members)

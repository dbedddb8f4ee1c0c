"""Rooms joined and left later, and pushes for some sessions only."""

from __future__ import annotations

from tests.unit.nodes.comet.comets import Comet, with_history
from tests.wires import GOIM_TCP
from zim.nodes.comet.feed import RENEW_S
from zim.nodes.comet.joining import AT_ONCE
from zim.protocol.vocabularies.base import Start
from zim.protocol.vocabularies.zim import JOINED_ALREADY, NOT_ALLOWED, refusals


def test_a_room_joined_later_is_like_one_from_the_start() -> None:
    comet, _ = with_history(3)
    guest = comet.enter("2")
    comet.do(comet.hub.join_rooms(guest, ["9", "8"], 5, 0.0, {"r:9": ("a", 1)}, refused=refusals(["secret"])))
    comet.settle()
    assert guest.got == ["opened", "joined 5", "2", "3"]
    assert guest.starts["r:9"] == Start("r:9", "a", 1)
    assert guest.starts["r:8"] == Start("r:8", "a", 0)
    assert guest.starts["r:secret"] == Start("r:secret", error=NOT_ALLOWED)
    assert list(guest.rooms) == ["9", "8"]
    comet.do(comet.hub.join_rooms(guest, ["9", "7"], 6, 0.0))
    comet.settle()
    assert guest.starts["r:9"] == Start("r:9", error=JOINED_ALREADY)
    assert list(guest.rooms) == ["9", "8", "7"]
    comet.push("r:9", body="4")
    assert guest.got == ["opened", "joined 5", "2", "3", "joined 6", "4"]


def test_a_join_of_nothing_is_answered() -> None:
    comet = Comet()
    guest = comet.enter("2", ["9"])
    comet.do(comet.hub.join_rooms(guest, [], 5, 0.0))
    comet.do(comet.hub.join_rooms(guest, ["9"], 6, 0.0))
    comet.do(comet.hub.join_rooms(guest, [], 7, 0.0, refused=refusals(["x"])))
    assert guest.got == ["opened", "joined 5", "joined 6", "joined 7"]


def test_refused_rooms_are_in_the_auth_reply() -> None:
    comet = Comet()
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, None, refused=refusals(["secret"])))
    comet.settle()
    assert guest.starts["r:secret"] == Start("r:secret", error=NOT_ALLOWED)
    assert guest.rooms == ("9",)


def test_nothing_of_a_room_comes_after_left() -> None:
    comet, first = with_history(1)
    guest = comet.enter("2", ["9", "8"])
    comet.do(comet.hub.leave_rooms(guest, ["9", "nowhere", "*"], 4, 0.0))
    comet.settle()
    comet.push("r:9", body="no")
    comet.push("r:8", body="yes")
    comet.push("*", body="all")
    assert guest.got == ["opened", "left 4 r:9", "yes", "all"]
    assert guest.rooms == ("8",)
    assert first.bodies == ["1", "no", "all"]


def test_who_leaves_a_room_during_a_pass_is_told_after_it() -> None:
    comet, _ = with_history(0)
    guest = comet.enter("2", ["9"])
    comet.router.publish("r:9", body="under way")
    comet.receive()
    todo = comet.begin_pass()
    comet.do(comet.hub.leave_rooms(guest, ["9"], 4, 0.0))
    assert guest.got == ["opened"]
    comet.end_pass(todo)
    comet.push("r:9", body="no")
    assert guest.got == ["opened", "under way", "left 4 r:9"]


def test_who_leaves_a_room_while_it_resumes_gets_no_more_of_it() -> None:
    comet, _ = with_history(40)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], 0.0, {"r:9": ("a", 0)}))
    comet.hear()
    page = comet.begin_pass()
    comet.do(comet.hub.leave_rooms(guest, ["9"], 4, 0.0))
    comet.end_pass(page)
    comet.settle()
    assert guest.got[-1] == "left 4 r:9"
    assert len(guest.bodies) < 40


def test_who_leaves_a_room_before_it_has_joined_it_gets_both_answers() -> None:
    comet = Comet()
    guest = comet.enter("2")
    comet.do(comet.hub.join_rooms(guest, ["9"], 5, 0.0))
    comet.do(comet.hub.leave_rooms(guest, ["9"], 6, 0.0))
    comet.settle()
    comet.push("r:9", body="no")
    assert guest.got == ["opened", "joined 5", "left 6 r:9"]


def test_who_comes_back_to_a_room_starts_anew() -> None:
    comet = Comet()
    guest = comet.enter("2", ["9"])
    comet.push("r:9", body="1")
    comet.do(comet.hub.leave_rooms(guest, ["9"], 4, 0.0))
    comet.settle()
    comet.router.append("r:9", "2")
    comet.do(comet.hub.join_rooms(guest, ["9"], 5, 0.0))
    comet.settle()
    assert guest.starts["r:9"] == Start("r:9", "a", 2)
    comet.push("r:9", body="3")
    assert guest.bodies == ["1", "3"]


# ---------------------------------------------------------------- some sessions only


def test_a_push_to_keys_is_for_these_sessions_alone() -> None:
    comet = Comet()
    here, there, goim = comet.enter("2"), comet.enter("2"), comet.enter("2", speech=GOIM_TCP)
    n = comet.push("u:2", body="here", only=(here.key, "2_999"))
    comet.push("u:2", body="goim", only=(goim.key,))
    comet.push("u:2", body="all")
    assert here.bodies == ["here", "all"]
    assert there.bodies == ["all"]
    assert goim.bodies == ["goim", "all"]
    comet.tick(RENEW_S)
    assert (comet.router.results[n].targeted, comet.router.results[n].delivered) == (1, 1)


def test_keys_of_one_user_do_not_narrow_other_streams() -> None:
    comet = Comet()
    guest, other = comet.enter("2", ["9"]), comet.enter("3", ["9"])
    comet.push("u:2", "u:3", "r:9", body="x", only=("2_999",))
    assert guest.offsets == {"r:9": [1]}
    assert other.offsets == {"u:3": [1], "r:9": [1]}


def test_what_was_for_one_session_only_is_passed_over_in_a_resume() -> None:
    comet = Comet()
    here = comet.enter("2")
    for body, only in (("1", []), ("2", [here.key]), ("3", ["2_999"]), ("4", [])):
        comet.push("u:2", body=body, only=tuple(only))
    again = comet.enter("2", resume={"u:2": ("a", 0)})
    assert again.offsets["u:2"] == [1, 4]
    assert here.offsets["u:2"] == [1, 2, 4]


def test_what_queued_for_one_session_only_reaches_nobody_else() -> None:
    comet, _ = with_history(2)
    comet.router.append("u:2", "1")
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", [], 0.0, {"u:2": ("a", 0)}))
    comet.hear()
    for only in ((f"2_{guest.seq}",), ("2_999",), ()):
        comet.push("u:2", body="queued", only=only)
    comet.settle()
    assert guest.offsets["u:2"] == [1, 2, 4]


def test_who_joins_very_many_rooms_asks_for_some_at_a_time_and_has_one_reply() -> None:
    comet = Comet()
    guest = comet.enter("1")
    rooms = [str(n) for n in range(2 * AT_ONCE + 1)]
    comet.do(comet.hub.join_rooms(guest, rooms, 5, 0.0))
    steps = 1
    while comet.hub.is_joining(guest):
        comet.settle()
        assert "joined 5" not in guest.got
        comet.do(comet.hub.go_on_joining(guest, 0.0))
        steps += 1
    comet.settle()
    assert (steps, guest.got[1:]) == (3, ["joined 5"])
    assert len([start for start in guest.starts.values() if not start.error]) == len(rooms) + 2


def test_who_leaves_while_it_joins_is_gone() -> None:
    comet = Comet()
    guest = comet.enter("1")
    comet.do(comet.hub.join_rooms(guest, [str(n) for n in range(AT_ONCE + 1)], 5, 0.0))
    comet.do(comet.hub.leave(guest, 0.0))
    assert not comet.hub.is_joining(guest)
    comet.settle()
    assert list(comet.hub._views) == ["*"]

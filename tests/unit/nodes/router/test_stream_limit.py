"""How many pushes a stream takes: refused before the append, all or nothing, and honest about keys."""

from __future__ import annotations

from tests.unit.nodes.router.test_intake import Desk
from zim.fabric.buckets import Rate
from zim.fabric.refusals import Gathered


def limited_desk(burst: float = 2, per_s: float = 1) -> Desk:
    desk = Desk()
    desk.intake.limit.follow(Rate(per_s, burst))
    return desk


def test_what_is_too_much_is_not_stored_and_says_which_stream() -> None:
    desk = limited_desk()
    reqs = [desk.publish(f"p{n}", "u:1") for n in range(3)]
    desk.commit()
    assert [desk.answers[req][0] for req in reqs] == ["ok", "ok", "unavailable"]
    assert [desk.over[req] for req in reqs] == [0, 0, 1]
    assert desk.intake.limit.refusals.by_limit == {"pushes_per_stream": 1}
    assert desk.intake.limit.refusals.news() == [Gathered("pushes_per_stream", 1, "u:1")]


def test_all_of_a_push_or_nothing_of_it() -> None:
    """And what is refused has cost the other streams nothing."""
    desk = limited_desk()
    for n in range(2):
        desk.publish(f"p{n}", "u:1")
    for n in range(5):
        assert desk.over[desk.publish(f"q{n}", "u:2", "u:1", "u:3")] == 2
    later = [desk.publish(f"r{n}", "u:2", "u:3") for n in range(2)]
    desk.commit()
    assert [desk.answers[req] for req in later] == [("ok", [1, 1]), ("ok", [2, 2])]
    assert sorted(desk.fresh) == [(s, n) for s in ("u:1", "u:2", "u:3") for n in (1, 2)]


def test_after_a_while_there_is_room_again() -> None:
    desk = limited_desk(burst=1)
    desk.publish("a", "u:1")
    assert desk.over[desk.publish("b", "u:1")] == 1
    desk.commit()
    desk.tick(1.0)
    req = desk.publish("c", "u:1")
    desk.commit()
    assert desk.answers[req] == ("ok", [2])


def test_what_is_known_is_confirmed_whatever_its_stream_has() -> None:
    """In memory, on its way, and in the log alone."""
    desk = limited_desk(burst=1)
    first = desk.publish("a", "u:1", digest=b"d", home_ms=0)
    again = desk.publish("a", "u:1", digest=b"d", home_ms=0, attempt=2, term=7)
    desk.commit()
    assert desk.answers[first] == desk.answers[again] == ("ok", [1])
    known = desk.publish("a", "u:1", digest=b"d")
    assert desk.answers[known] == ("ok", [1])
    desk.tick(100.0)
    desk.publish("other", "u:1")
    desk.commit()
    late = desk.publish("a", "u:1", digest=b"d")
    assert late not in desk.answers
    desk.look_up()
    assert (desk.answers[late], desk.over[late]) == (("ok", [1]), 0)


def test_a_key_that_was_refused_is_free() -> None:
    """For the same push, and for another one."""
    desk = limited_desk(burst=1)
    desk.publish("a", "u:1")
    desk.commit()
    refused = desk.publish("k", "u:1", digest=b"d")
    desk.look_up()
    assert (desk.answers[refused][0], desk.over[refused]) == ("unavailable", 1)
    desk.tick(1.0)
    again = desk.publish("k", "u:1", digest=b"e")
    desk.commit()
    assert desk.answers[again] == ("ok", [2])


def test_another_rate_begins_anew_and_the_same_does_not() -> None:
    desk = limited_desk(burst=1)
    desk.publish("a", "u:1")
    desk.intake.limit.follow(Rate(1, 1))
    assert desk.over[desk.publish("b", "u:1")] == 1
    desk.intake.limit.follow(Rate(1, 2))
    desk.publish("c", "u:1")
    desk.intake.limit.follow(None)
    for n in range(9):
        desk.publish(f"d{n}", "u:1")
    desk.commit()
    assert len(desk.fresh) == 11


def test_a_push_counts_in_each_of_its_streams() -> None:
    desk = limited_desk(burst=1)
    desk.publish("a", "u:1", "u:2", "r:3")
    assert [desk.over[desk.publish(s, s)] for s in ("u:1", "u:2", "r:3")] == [1, 1, 1]

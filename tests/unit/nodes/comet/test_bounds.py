"""What a comet asks and keeps stays bounded, whoever comes, leaves, or does not answer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.nodes.comet.comets import Comet, numbers, with_history
from tests.wires import GOIM_TCP
from zim.fabric.limits import CHANGES
from zim.nodes.comet import feed
from zim.nodes.comet.feed import CHANGES_BYTES, MADE_AT_ONCE, RENEW_S, RETRY_S, WINDOW_BYTES
from zim.nodes.comet.feeds import Feeds
from zim.nodes.comet.hub import ROOMS_S
from zim.nodes.comet.passes import READS
from zim.nodes.placement import Placement
from zim.protocol.messages import Changes, Entry, Put, Read, Records, Room, change_bytes


def reads(comet: Comet) -> list[Read]:
    """The questions that wait at the router."""
    return [m for m in comet.router.inbox if isinstance(m, Read)]


def test_nobody_asks_for_who_has_left() -> None:
    comet, _ = with_history(5)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], comet.now, {"r:9": ("a", 1)}))
    assert len(reads(comet)) == 1
    comet.do(comet.hub.leave(guest, comet.now))
    comet.router.inbox.clear()
    for _ in range(3):
        comet.now += RETRY_S + 0.1
        comet.do(comet.hub.on_tick(comet.now, 1 << 20))
    assert reads(comet) == []


def test_an_answer_that_takes_longer_than_the_patience_for_it_counts() -> None:
    comet, _ = with_history(5)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], comet.now, {"r:9": ("a", 1)}))
    late = comet.router.inbox.copy()
    comet.now += RETRY_S + 0.1
    comet.do(comet.hub.on_tick(comet.now, 1 << 20))
    assert len({m.req for m in reads(comet)}) == 1
    comet.router.inbox = late
    comet.settle()
    assert guest.bodies == numbers(2, 5)


def test_a_router_is_asked_so_much_at_once_and_everybody_gets_an_answer() -> None:
    comet, _ = with_history(READS + 20)
    guests = [comet.guest() for _ in range(READS + 10)]
    for n, guest in enumerate(guests):
        comet.do(comet.hub.join(guest, f"7{n}", ["9"], comet.now, {"r:9": ("a", n)}))
    assert len(reads(comet)) == READS
    comet.settle()
    assert all(guest.bodies == numbers(n + 1, READS + 20) for n, guest in enumerate(guests))


def test_who_misses_the_same_reads_it_once() -> None:
    comet, _ = with_history(5)
    guests = [comet.guest() for _ in range(50)]
    for guest in guests:
        comet.do(comet.hub.join(guest, "2", ["9"], comet.now, {"r:9": ("a", 1)}))
    pages = 0
    while comet.router.inbox:
        inbox, comet.router.inbox = comet.router.inbox, []
        pages += sum(isinstance(m, Read) and m.limit > 1 for m in inbox)
        for m in inbox:
            comet._take(comet.router.answer(m))
        comet.run()
    assert pages == 1
    assert all(guest.bodies == numbers(2, 5) for guest in guests)
    comet.push("r:9", body="6")
    assert all(guest.bodies == numbers(2, 6) for guest in guests)


def test_a_router_that_is_away_for_long_is_told_everything_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "UNSENT", 100)
    comet = Comet()
    stays = comet.enter("1", ["9"])
    link = comet.hub.links["router-1"]
    comet.router.is_away = True
    most = 0
    for _ in range(20_000):
        guest = comet.guest()
        comet.do(comet.hub.join(guest, "2", ["8"], comet.now))
        comet.do(comet.hub.leave(guest, comet.now))
        most = max(most, len(link._unsent))
    assert most <= 101
    last = comet.guest()
    comet.do(comet.hub.join(last, "3", ["9"], comet.now))
    comet.router.append("r:9", "1")
    comet.router.is_away = False
    comet.tick(RENEW_S)
    assert comet.hub.links.is_registered()
    assert last.is_open
    comet.push("r:9", body="2")
    assert stays.bodies == ["1", "2"]
    assert last.bodies == ["2"]


def test_entries_of_a_registration_that_was_given_up_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its answers would have said of the streams, such as another epoch, is not known."""
    monkeypatch.setattr(feed, "UNSENT", 4)
    comet = Comet()
    stays = comet.enter("1", ["9"])
    link = comet.hub.links["router-1"]
    comet.router.is_away = True
    while link.term:
        comet.do(comet.hub.join(comet.guest(), "2", ["8"], comet.now))
    link.entry(Entry("router-1", "comet-1", link._inc, link.begin, 1, "p", 5, b"1", [("r:9", 9)]))
    assert link.held_bytes == 0
    assert link.take(1_000) == []
    assert stays.bodies == []


def test_changes_are_counted_with_the_names_in_them() -> None:
    comet = Comet()
    rooms = [f"{n:0200}" for n in range(100)]
    comet.router.is_away = True
    for n in range(200):
        comet.do(comet.hub.join(comet.guest(GOIM_TCP), f"7{n}", rooms, comet.now))
    link = comet.hub.links["router-1"]
    largest = max(map(change_bytes, link._unanswered.values()))
    assert largest > 100 * 200
    assert sum(map(change_bytes, link._unanswered.values())) <= WINDOW_BYTES + CHANGES_BYTES + largest
    comet.router.is_away = False
    comet.now += RETRY_S + 0.1
    comet.do(comet.hub.on_tick(comet.now, 1 << 20))
    sent = [m for m in comet.router.inbox if isinstance(m, Changes)]
    assert max(sum(map(change_bytes, m.changes)) for m in sent) <= CHANGES_BYTES + largest


def test_who_joins_and_leaves_all_the_time_is_named_now_and_then() -> None:
    comet = Comet()
    guest = comet.enter("3", ["9"])
    told = 0
    for n in range(40):
        comet.do(comet.hub.join_rooms(guest, ["8"], n, comet.now))
        comet.do(comet.hub.leave_rooms(guest, ["8"], n, comet.now))
        comet.now += ROOMS_S / 20
        comet.do(comet.hub.on_tick(comet.now, 1 << 20))
        told += sum(isinstance(c, Put) for m in comet.router.inbox if isinstance(m, Changes) for c in m.changes)
        comet.settle()
    assert 1 <= told <= 3
    comet.do(comet.hub.join_rooms(guest, ["7"], 99, comet.now))
    comet.now += ROOMS_S
    comet.do(comet.hub.on_tick(comet.now, 1 << 20))
    puts = [c for m in comet.router.inbox if isinstance(m, Changes) for c in m.changes if isinstance(c, Put)]
    assert [put.rooms for put in puts] == [("9", "7")]


def test_a_router_that_is_back_is_told_of_very_many_sessions_in_steps() -> None:
    comet = Comet()
    guests = [comet.enter(f"7{n}") for n in range(2 * MADE_AT_ONCE)]
    comet.restart_router(comet.router)
    comet.now += RENEW_S
    comet.do(comet.hub.on_tick(comet.now, 1 << 20))
    (renew,) = comet.router.inbox
    comet.router.inbox.clear()
    comet._take(comet.router.answer(renew))
    told = [change for m in comet.router.inbox if isinstance(m, Changes) for change in m.changes]
    assert MADE_AT_ONCE <= len(told) < MADE_AT_ONCE + CHANGES
    left, stays = guests[-1], guests[-2]  # nobody has told of them yet
    comet.do(comet.hub.leave(left, comet.now))
    comet.settle()
    assert comet.hub.links.is_registered()
    comet.push(f"u:{stays.uid}", body="x")
    assert (stays.bodies, left.bodies) == (["x"], [])


def test_a_router_that_knows_no_such_stream_is_not_asked_again_at_once() -> None:
    comet, _ = with_history(5)
    guest = comet.guest()
    comet.do(comet.hub.join(guest, "2", ["9"], comet.now, {"r:9": ("a", 1)}))
    (read,) = reads(comet)
    comet.router.inbox.remove(read)
    comet.do(comet.hub.on_message(Records(read.req, "router-1", "r:9", "", 0, 0, [], 0), comet.now))
    assert reads(comet) == []
    comet.now += RETRY_S + 0.1
    comet.do(comet.hub.on_tick(comet.now, 1 << 20))
    assert [m.req for m in reads(comet)] == [read.req]
    comet.settle()
    assert guest.bodies == numbers(2, 5)


def test_what_many_shards_are_to_be_told_is_one_step_for_all_of_them() -> None:
    out: list[Any] = []
    routers = [f"router-{n}" for n in range(16)]
    placement = Placement("comet-1", routers, routers)
    feeds = Feeds("comet-1", 1, placement, out, CHANGES)
    for router in routers:
        feeds.on_link(router, True)
    for link in feeds.values():
        link.register(1, [lambda n: Room(n, "a", 1)] * 2 * MADE_AT_ONCE, 0.0)
    counts: list[list[int]] = []
    while any(link.is_behind for link in feeds.values()) and len(counts) < 3:
        out.clear()
        feeds.flush()
        counts.append([len(send.message.changes) for send in out if isinstance(send.message, Changes)])
    assert [sum(count) <= MADE_AT_ONCE for count in counts] == [True] * 3
    assert {len(count) for count in counts} == {16}

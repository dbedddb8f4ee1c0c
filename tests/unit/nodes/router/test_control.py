"""Who must go: what a router orders its comets, until they have obeyed."""

from __future__ import annotations

from typing import Any

from zim.fabric.bans import Ban, Banned
from zim.fabric.grants import SessionPolicy
from zim.fabric.limits import ORDERS
from zim.fabric.sharding import Shards
from zim.fabric.tally import Tally
from zim.nodes.router.control import AGAIN_S, HOLD_S, SWAPS
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import Shard
from zim.protocol.messages import Begin, Change, Changes, Del, Put, Renew
from zim.protocol.orders import Bar, Expel, Move, Order, Orders, Unbar

ANYWHERE = SessionPolicy()


class Desk:
    """A router's shard with two comets, and what these are ordered."""

    def __init__(self, policy: SessionPolicy = ANYWHERE, bans: tuple[Ban, ...] = (), routers: int = 1) -> None:
        ledger = RouterLedger(Tally(), 0, 0, 0, 0)
        names = [f"router-{n + 1}" for n in range(routers)]
        owner = Shards(names).of("*")
        self.shard: Shard[Any] = Shard(owner, 7, Shards(names), ["comet-1", "comet-2"], 0.0, 1 << 20, 5, ledger)
        self.control = self.shard.control
        self.control.policy = policy
        self.control.load(bans)
        self.now = 0.0
        self.renews = 0
        self.changes = {"comet-1": 0, "comet-2": 0}

    def register(self, comet: str = "comet-1") -> list[Order]:
        self.changes[comet] += 1
        return self.say(comet, Begin(self.changes[comet], 0))

    def put(self, conn: int, uid: str = "7", comet: str = "comet-1", seq: int = 0, **more: Any) -> list[Order]:
        self.changes[comet] += 1
        return self.say(comet, Put(self.changes[comet], conn, uid, seq, more.pop("rooms", ()), **more))

    def leave(self, conn: int, comet: str = "comet-1") -> list[Order]:
        self.changes[comet] += 1
        return self.say(comet, Del(self.changes[comet], conn))

    def say(self, comet: str, change: Change) -> list[Order]:
        self.shard.changes(Changes("router-1", comet, 1, 7, [change]), self.now)
        self.shard.hears(comet, comet, 1)
        return self.ordered(comet)

    def obey(self, n: int, comet: str = "comet-1", begin: int = 1) -> None:
        self.renews += 1
        self.shard.renew(Renew("router-1", comet, 1, 7, self.renews, 0, [], begin, n), self.now, 0)

    def ordered(self, comet: str = "comet-1", now_ms: int = 0) -> list[Order]:
        """What goes to a comet now."""
        self.control.look(self.now, now_ms)
        sent: list[tuple[str, Orders]] = self.control.due(self.now)
        return [order for peer, m in sent if peer == comet for order in m.orders]


def closed(orders: list[Order]) -> list[tuple[int, str]]:
    return [(order.conn, order.why) for order in orders if isinstance(order, Expel)]


def test_orders_go_at_once_and_again_until_they_are_obeyed() -> None:
    desk = Desk()
    desk.register()
    desk.put(1)
    desk.obey(1)  # of all networks nobody is banned
    assert desk.control.kick("7", "", 0, "kicked", "bye") == 1
    assert desk.ordered() == [Expel(2, 1, "kicked", "bye")]
    assert desk.ordered() == []
    desk.now = AGAIN_S
    assert desk.ordered() == [Expel(2, 1, "kicked", "bye")]
    desk.obey(2)
    desk.now = 2 * AGAIN_S
    assert desk.ordered() == []


def test_who_is_leaving_is_not_kicked_twice_and_goes_when_its_comet_says_so() -> None:
    desk = Desk()
    desk.register()
    desk.put(1)
    assert [desk.control.kick("7", "", 0, "kicked", "") for _ in range(2)] == [1, 0]
    desk.leave(1)
    assert desk.shard.directory.sessions_of("7") == []


def test_kicks_of_a_device_or_of_one_session_alone() -> None:
    desk = Desk()
    desk.register()
    for conn, device in ((1, "phone"), (2, "web"), (3, "phone")):
        desk.put(conn, device=device)
    desk.obey(1)
    assert desk.control.kick("7", "web", 0, "kicked", "") == 1
    assert desk.control.kick("7", "", 7, "sent away", "") == 1
    assert closed(desk.ordered()) == [(2, "kicked"), (3, "sent away")]


def test_a_ban_closes_and_stays_also_for_who_comes_later_or_registers_after_a_restart() -> None:
    ban = Ban(Banned("7"), "spam")
    desk = Desk()
    desk.register()
    desk.put(1)
    assert desk.control.put(ban) == 1
    assert closed(desk.ordered()) == [(1, "banned")]
    assert closed(desk.put(2))[-1:] == [(2, "banned")]
    assert closed(desk.put(3, uid="8"))[2:] == []
    again = Desk(bans=(ban,))
    again.register()
    assert closed(again.put(2, seq=9)) == [(2, "banned")]


def test_a_ban_of_a_device_is_for_that_alone_and_one_that_has_ended_for_nobody() -> None:
    desk = Desk(bans=(Ban(Banned("7", "phone")), Ban(Banned("8"), ends_ms=5)))
    desk.register()
    desk.put(1, device="web")
    desk.put(2, device="phone")
    desk.now = AGAIN_S
    assert closed(desk.ordered(now_ms=5)) == [(2, "banned")]
    desk.changes["comet-1"] += 1
    desk.shard.changes(Changes("router-1", "comet-1", 1, 7, [Put(desk.changes["comet-1"], 3, "8", 0, ())]), desk.now)
    assert (3, "banned") not in closed(desk.ordered(now_ms=5))
    assert desk.control.ended(5, 10) == [Banned("8")]
    assert desk.control.lift(Banned("8"))
    assert not desk.control.lift(Banned("8"))
    assert desk.control.ended(1 << 40, 10) == []


def test_the_end_of_many_bans_is_found_some_at_a_time() -> None:
    desk = Desk(bans=tuple(Ban(Banned(str(n)), ends_ms=5) for n in range(5)))
    assert [str(n) for n in range(2)] == [banned.user for banned in desk.control.ended(9, 2)]
    for banned in desk.control.ended(9, 2):
        desk.control.lift(banned)
    assert len(desk.control.ended(9, 9)) == 3


def test_networks_are_told_to_every_comet_that_registers_by_the_owner_of_everybody() -> None:
    ban = Ban(Banned(network="203.0.113.0/24"), "abuse")
    desk = Desk(bans=(ban,), routers=3)
    assert desk.register() == [Unbar(1, ""), Bar(2, "203.0.113.0/24", "abuse")]
    assert desk.register("comet-2") == [Unbar(1, ""), Bar(2, "203.0.113.0/24", "abuse")]
    desk.obey(2)
    desk.control.put(Ban(Banned(network="198.51.100.7/32")))
    assert desk.ordered() == [Bar(3, "198.51.100.7/32", "")]
    desk.obey(3)
    desk.control.lift(ban.banned)
    assert desk.ordered() == [Unbar(4, "203.0.113.0/24")]


def test_what_was_not_obeyed_is_ordered_anew_when_a_comet_registers_again() -> None:
    desk = Desk()
    desk.register()
    desk.put(1)
    desk.control.kick("7", "", 0, "kicked", "bye")
    orders = desk.register()
    assert closed(orders) == [(1, "kicked")]
    assert [order.n for order in orders] == list(range(1, len(orders) + 1))


def test_the_newest_session_of_a_class_of_devices_wins_and_the_oldest_is_told_to_stay_away() -> None:
    desk = Desk(SessionPolicy(per_device=1))
    for comet in ("comet-1", "comet-2"):
        desk.register(comet)
    desk.put(1, device="phone")
    desk.put(2, device="web")
    desk.put(3, device="phone", comet="comet-2")
    assert closed([*desk.shard.directory.feeds["comet-1"].orders]) == [(1, "replaced")]


def test_of_all_sessions_only_so_many_stay_and_a_token_may_say_how_many() -> None:
    desk = Desk(SessionPolicy(per_user=2))
    desk.register()
    for conn in (1, 2, 3):
        desk.put(conn)
    desk.put(9, uid="8", most=1)
    desk.put(10, uid="8", most=1)
    assert closed([*desk.shard.directory.feeds["comet-1"].orders]) == [(1, "replaced"), (9, "replaced")]


def test_where_the_oldest_wins_who_comes_is_refused() -> None:
    desk = Desk(SessionPolicy(per_user=1, newest_wins=False))
    desk.register()
    desk.put(1)
    assert closed(desk.put(2)) == [(2, "too many")]


def test_after_a_restart_all_come_back_in_any_order_and_the_newest_are_still_those_that_stay() -> None:
    desk = Desk(SessionPolicy(per_user=1))
    desk.register()
    desk.put(1, seq=12)
    desk.put(2, seq=11)
    assert closed([*desk.shard.directory.feeds["comet-1"].orders]) == [(2, "replaced")]


def test_two_devices_that_always_come_back_replace_each_other_so_often_and_no_more() -> None:
    desk = Desk(SessionPolicy(per_user=1))
    desk.register()
    desk.put(1)
    conn = 1
    for _ in range(20):  # whoever is sent away comes back at once, whatever it is told
        conn += 1
        desk.put(conn)
        feed = desk.shard.directory.feeds["comet-1"]
        for going in [session.conn for session in feed.sessions.values() if session.is_leaving]:
            desk.leave(going)
    assert desk.control.closed["replaced"] == SWAPS
    assert desk.control.closed["too many"] == 20 - SWAPS
    desk.now = 2 * HOLD_S
    desk.put(conn + 1)
    assert desk.control.closed["replaced"] == SWAPS + 1


def test_a_user_is_moved_between_rooms_in_all_sessions() -> None:
    desk = Desk()
    desk.register()
    desk.put(1)
    desk.put(2)
    desk.obey(1)
    assert desk.control.move("7", ["a"], ["b"], "why") == 2
    assert desk.ordered() == [Move(2, 1, ("a",), ("b",), "why"), Move(3, 2, ("a",), ("b",), "why")]


def test_those_in_a_room_leave_it_or_the_fabric() -> None:
    desk = Desk()
    desk.register()
    desk.put(1, rooms=("a", "b"))
    desk.put(2, uid="8", rooms=("b",))
    desk.obey(1)
    feed = desk.shard.directory.feeds["comet-1"]
    there = [(feed, session) for session in feed.sessions.values()]
    assert desk.control.kick_from("a", there, None, "why") == 1
    assert desk.control.kick_from("b", there, "kicked", "why") == 2
    orders = [Move(2, 1, (), ("a",), "why"), Expel(3, 1, "kicked", "why"), Expel(4, 2, "kicked", "why")]
    assert desk.ordered() == orders


def test_very_many_orders_go_some_at_a_time() -> None:
    desk = Desk()
    desk.register()
    for conn in range(ORDERS + 5):
        desk.put(conn)
    desk.obey(1)
    desk.control.kick("7", "", 0, "kicked", "")
    assert [order.n for order in desk.ordered()] == [*range(2, ORDERS + 2)]
    desk.obey(ORDERS + 1)
    desk.now = AGAIN_S
    assert len(desk.ordered()) == 5

"""What a router answers to questions: from memory, while it is rebuilding, and over the parts of a push."""

from __future__ import annotations

from typing import Any

import pytest

from zim.fabric.answers import Counts, Forgotten, Located, Place, Unread
from zim.fabric.limits import ROOMS, SESSION_ROOMS, SESSIONS
from zim.fabric.questions import ForgetComet, OnlineCounts, UnreadCount, UserSessions, WholeLedger
from zim.fabric.sharding import Shards
from zim.fabric.tally import Tally
from zim.nodes.effects import Replies
from zim.nodes.router.answering import answer_from_disk, sum_up
from zim.nodes.router.counting import Counting
from zim.nodes.router.log import Head
from zim.nodes.router.log.receipts import RouterReceipt
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import LEASE_S, QUESTIONS, Shard
from zim.protocol import codec
from zim.protocol.messages import Answered, Ask, Begin, Change, Changes, Put, Room


def shard_of(comets: list[str]) -> Shard[str]:
    ledger = RouterLedger(Tally(3, 2, 1), 4, 2, 0)
    return Shard("router-1", 1, Shards(["router-1"]), comets, 0.0, 1, 1, ledger)


def whole() -> Shard[str]:
    """A router that comet-1 has told of all its sessions."""
    shard = shard_of(["comet-1"])
    changes: list[Change] = [Begin(1, 3), Put(2, 1, "7", 0, ("a",)), Put(3, 2, "8", 0, ()), Room(4, "a", 1)]
    shard.changes(Changes("router-1", "comet-1", 1, 1, changes), 0.0)
    assert shard.tick(0.1) == []
    assert not shard.is_rebuilding
    return shard


def answer(shard: Shard[str], question: Any) -> Any:
    found = shard.ask("logic-1", Ask("router-1", 9, question))
    assert isinstance(found, Answered)
    assert (found.req, found.shard) == (9, "router-1")
    return found.answer


def counts(shard: Shard[str]) -> Any:
    """Counted in steps, until the answer is there."""
    counting = Counting(shard)
    counting.ask("logic-1", Ask("router-1", 9, OnlineCounts()))
    (effect,) = counting.begin(0.0)
    while not isinstance(effect, Replies):
        (effect,) = counting.go_on(0.0)
    ((_, found),) = effect.answers
    assert isinstance(found, Answered)
    return found.answer


def test_where_a_user_is_and_how_many_are_online() -> None:
    shard = whole()
    assert answer(shard, UserSessions("7")) == Located("7", True, [Place("comet-1", "7_1", ("a",))], 0)
    assert answer(shard, UserSessions("9")) == Located("9", False, [], 0)
    assert counts(shard) == Counts({"a": 1}, {"comet-1": 2}, 1)


@pytest.mark.parametrize(
    ("sessions", "rooms", "shown"),
    [(SESSIONS, 0, SESSIONS), (SESSIONS + 1, 0, SESSIONS), (9, SESSION_ROOMS // 4, 4), (1, 2 * ROOMS, 1)],
)
def test_a_user_with_very_many_sessions_is_not_shown_whole(sessions: int, rooms: int, shown: int) -> None:
    """A token that is no number is user 0: there may be a hundred thousand of that one."""
    shard = shard_of(["comet-1"])
    names = tuple(map(str, range(rooms)))
    changes: list[Change] = [Begin(1, sessions), *(Put(n + 1, n, "0", 0, names) for n in range(1, sessions + 1))]
    shard.changes(Changes("router-1", "comet-1", 1, 1, changes), 0.0)
    shard.tick(0.1)
    found = answer(shard, UserSessions("0"))
    assert (found.online, len(found.sessions), found.left_out) == (True, shown, sessions - shown)


def test_what_is_about_the_whole_directory_waits_until_it_is_whole() -> None:
    shard = shard_of(["comet-1"])
    assert shard.ask("logic-1", Ask("router-1", 1, UserSessions("8"))) is None
    assert shard.ask("logic-2", Ask("router-1", 2, UserSessions("7"))) is None
    assert answer(shard, WholeLedger()).targeted == 3
    assert answer(shard, ForgetComet("comet-1")) == Forgotten(0)
    told = shard.tick(LEASE_S + 0.1)
    assert told == []  # it stood still for that long, and hears the comets out
    told = [found for at in range(1, 9) for found in shard.tick(LEASE_S + 0.1 + at / 2)]
    assert told == [
        ("logic-1", Answered(1, "router-1", Located("8", False, [], 0))),
        ("logic-2", Answered(2, "router-1", Located("7", False, [], 0))),
    ]


def test_too_many_that_wait_are_dropped_and_counted() -> None:
    shard = shard_of(["comet-1"])
    for n in range(QUESTIONS + 2):
        assert shard.ask("logic-1", Ask("router-1", n, UserSessions("7"))) is None
    assert shard.dropped_questions == 2


def test_a_comet_is_forgotten_once() -> None:
    shard = whole()
    assert answer(shard, ForgetComet("comet-1")) == Forgotten(2)
    assert answer(shard, ForgetComet("comet-1")) == Forgotten(0)
    assert answer(shard, ForgetComet("comet-99")) == Forgotten(0)
    assert counts(shard) == Counts({}, {}, 0)


def test_the_ledger_counts_what_is_pending_by_itself() -> None:
    ledger = answer(whole(), WholeLedger())
    assert (ledger.pushes, ledger.offline, ledger.targeted, ledger.delivered, ledger.gone) == (2, 4, 3, 2, 1)
    assert (ledger.pending, ledger.balanced) == (0, True)


@pytest.mark.parametrize(
    ("floor", "head", "cursor", "unread"),
    [(0, 9, 0, 9), (0, 9, 4, 5), (6, 9, 4, 3), (0, 9, 9, 0), (0, 3, 7, 0), (0, 0, 0, 0)],
)
def test_unread_is_what_is_kept_behind_the_cursor(floor: int, head: int, cursor: int, unread: int) -> None:
    """The cursor may be of another history."""
    found = answer_from_disk(UnreadCount("7"), (cursor, Head("e", floor, head)), whole(), ())
    assert found == Unread("u:7", "e", head, cursor, unread)


def test_people_at_a_repl_get_plain_maps() -> None:
    shard = whole()
    answers = answer(shard, UserSessions("7")), counts(shard)
    located, counted = (codec.decode_plain(codec.encode_plain(found)) for found in answers)
    places = [{"comet": "comet-1", "key": "7_1", "rooms": ["a"]}]
    assert located == {"user": "7", "online": True, "sessions": places, "left_out": 0}
    assert counted == {"rooms": {"a": 1}, "comets": {"comet-1": 2}, "roomless": 1}


def test_the_parts_of_a_push_are_summed_up() -> None:
    one = RouterReceipt("p", 1, 10, 12, 20, Tally(targeted=3, delivered=2, shed=1), offline=1)
    one.open_rows, one.unserved = 2, ["r:a/b", "u:7"]
    two = RouterReceipt("p", 2, 11, 15, 0, Tally(targeted=2, unknown=1, expired=1))
    found = sum_up("p", [one, two], [])
    assert (found.targeted, found.delivered, found.gone, found.shed, found.expired, found.unknown) == (5, 2, 0, 1, 1, 1)
    assert (found.push_id, found.offline, found.pending, found.is_known) == ("p", 1, 0, True)
    assert found.hops_ms == {"kept": 5, "reported": 5}
    assert (found.offline_users, found.empty_rooms) == (["7"], ["a/b"])
    assert (found.awaited, found.is_final) == (2, False)
    many = [RouterReceipt("p", n, 10, 12, unserved=[f"u:{n}-{i}" for i in range(60)]) for n in (1, 2)]
    assert sum_up("p", many, []).offline_users == [f"1-{i}" for i in range(60)] + [f"2-{i}" for i in range(40)]
    assert sum_up("p", [two], []).hops_ms == {"kept": 4}
    assert not sum_up("p", [], []).is_known
    forgotten = sum_up("p", [], ["router-1"])
    assert (forgotten.is_known, forgotten.forgotten, forgotten.targeted) == (True, ["router-1"], 0)

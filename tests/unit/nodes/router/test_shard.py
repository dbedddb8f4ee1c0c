"""What a router decides over time: standstills, what may be trimmed, session numbers."""

from __future__ import annotations

from typing import Any

from zim.fabric.sharding import Shards
from zim.fabric.tally import Tally
from zim.nodes.router.intake import REMEMBER_S
from zim.nodes.router.log import Appended
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import DECIDED_AT_ONCE, LEASE_S, RENEW_S, SPARE_S, Shard
from zim.protocol.messages import Begin, Change, Changes, Publish, PublishReply, Put, Room
from zim.protocol.publication import Outcome, Publication


def fresh() -> Shard[Any]:
    ledger = RouterLedger(Tally(), 0, 0, 0, 0)
    return Shard("router-1", 7, Shards(["router-1"]), ["comet-1"], 0.0, 1 << 20, 5, ledger)


def tell(shard: Shard[Any], *changes: Change, now: float = 0.0) -> list[int]:
    """A comet's changes; returns the session numbers of those that were applied."""
    return [a.seq for a in shard.changes(Changes("router-1", "comet-1", 1, 7, list(changes)), now)]


def test_a_number_that_a_comet_names_is_not_given_again() -> None:
    """A log that was lost, or comes out of a backup, does not know what it has given."""
    shard = fresh()
    assert tell(shard, Begin(1, 2), Put(2, 1, "7", 40, ()), Put(3, 2, "7", 0, ())) == [0, 40, 41]


def test_a_router_that_stood_still_gives_nobody_up_for_it() -> None:
    shard = fresh()
    tell(shard, Begin(1, 1), Put(2, 1, "7", 0, ()))
    shard.tick(0.1)
    shard.tick(60.0)
    assert shard.directory.feeds["comet-1"].is_alive
    now = 60.0
    while now < 60.0 + LEASE_S + 0.2:
        now += RENEW_S / 2
        shard.tick(now)
    assert not shard.directory.feeds["comet-1"].is_alive


def test_a_router_that_stood_still_knows_the_pushes_before_it() -> None:
    """A publisher whose answer did not come asks again; for as long as that, the router remembers."""
    shard = fresh()
    shard.tick(0.1)
    pushes = [Publication("a", ["u:1"], 5, b"x")]
    assert shard.intake.publish("logic", Publish("router-1", 1, 1, 7, pushes), 0.1, 100, 0) is None
    shard.committed(shard.intake.commits.begin(), [Appended("stored", (1,))], 0.2, 200)
    shard.tick(0.2 + 2 * REMEMBER_S)
    again = shard.intake.publish("logic", Publish("router-1", 2, 2, 7, pushes), 0.3 + 2 * REMEMBER_S, 25_000, 0)
    assert isinstance(again, PublishReply)
    assert (again.req, again.outcomes) == (2, [Outcome(0, "ok", (1,))])


def test_nothing_is_trimmed_soon_after_a_start_or_a_standstill() -> None:
    shard = fresh()
    assert shard.trim_before(SPARE_S - 0.1, 1_000_000) == 0
    assert shard.trim_before(SPARE_S + 0.1, 1_000_000) == 1_000_000 - SPARE_S * 1000
    shard.tick(60.0)
    assert shard.trim_before(60.0 + SPARE_S - 0.1, 1_000_000) == 0


def test_who_was_not_there_while_the_directory_was_rebuilt_is_decided_in_steps() -> None:
    shard = fresh()
    users = [f"u:{n}" for n in range(DECIDED_AT_ONCE + 2)]
    tell(shard, Begin(1, 3), Put(2, 1, "1", 0, ()))
    assert not shard.directory.feeds["comet-1"].is_registered
    for push_id, streams in (("a", users[:-1]), ("b", users[-1:]), ("c", ["*", "r:1", "r:2"])):
        shard.intake.publish(
            "logic", Publish("router-1", 1, 1, 7, [Publication(push_id, streams, 5, b"x")]), 0.1, 100, 0
        )
        batch = shard.intake.commits.begin()
        shard.committed(batch, [Appended("stored", (1,) * len(streams))], 0.1, 100)
        shard.intake.commits.end()
    assert shard.ledger.offline == 0
    tell(shard, Put(3, 2, "2", 0, ()), Room(4, "2", 1))
    shard.tick(0.2)
    assert not shard.is_rebuilding
    assert shard.ledger.offline == DECIDED_AT_ONCE - 1
    shard.tick(0.3)
    assert shard.ledger.offline == DECIDED_AT_ONCE
    assert [r.offline for name in "abc" for r in shard.ledger.find(name)] == [DECIDED_AT_ONCE - 1, 1, 0]
    assert [r.unserved for r in shard.ledger.find("c")] == [("r:1",)]

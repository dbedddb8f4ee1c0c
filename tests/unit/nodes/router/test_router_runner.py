"""A router's runner: shards that come and go, and what is said of them meanwhile."""

from __future__ import annotations

from typing import Any, TypeVar

from zim.errors import Unavailable, Unknown
from zim.fabric.sharding import Shards
from zim.fabric.tally import Tally
from zim.nodes.effects import Effect, End, Note, Replies
from zim.nodes.router.effects import (
    Append,
    AtShard,
    BeatNow,
    CloseShard,
    Give,
    LookAround,
    LookUp,
    OpenShard,
    ReadHeads,
    ShardOpened,
    StoreReceipts,
    Take,
)
from zim.nodes.router.log import Appended, Damaged, Head, Lease
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.receipts import Before
from zim.nodes.router.log.shared import Beat, Holding, Rows
from zim.nodes.router.owning import BEAT_S, DEADLINE_S, Owning
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.runner import HAND_OVER_S, REPORT_S, RouterRunner
from zim.nodes.router.shard import Shard
from zim.nodes.router.shard_runner import ShardRunner
from zim.protocol import messages
from zim.protocol.placing import AskOwned, Moved, Owned
from zim.protocol.publication import Publication

E = TypeVar("E", bound=Effect)
SHARDS = ["shard-1", "shard-2"]
STREAM = next(f"u:{n}" for n in range(99) if Shards(SHARDS).of(f"u:{n}") == "shard-1")


def make(opened: ShardOpened, clock: LogClock, now: float) -> ShardRunner[str]:
    name, term = opened.lease.shard, opened.lease.term
    shard: Shard[str] = Shard(
        name, term, Shards(SHARDS), ["comet-1"], now, 1 << 20, opened.next_seq, RouterLedger(*opened.before)
    )
    return ShardRunner(shard, clock, opened.seqs_end, opened.forgotten, ["comet-1"], ["job-1"], now)


class House:
    """A router with a shared log, of which the test plays the rows and the disk."""

    def __init__(self) -> None:
        self.now = 10.0
        owning = Owning("router-1", ["router-1", "router-2"], 0, self.now - 9.0)
        owning.run = 1
        self.owning = owning
        self.runner: RouterRunner[str] = RouterRunner("router-1", make, LogClock(0, 0.0, 0.0), owning)
        self.holdings = {shard: Holding(shard, "", 0, 0) for shard in SHARDS}
        self.other = Beat("router-2", 1, 1, 0, 1, is_dead=True)
        self.asked: dict[Any, Lease] = {}

    def do(self, effects: list[Effect]) -> list[Effect]:
        """Takes and opens what is wanted. Returns all the rest."""
        left: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Take):
                lease = Lease(effect.holding.shard, effect.holding.term + 7)
                self.holdings[lease.shard] = Holding(lease.shard, "router-1", 1, lease.term)
                left += self.do(self.runner.on_owner_done(effect, lease, self.now))
            elif isinstance(effect, OpenShard):
                opened = ShardOpened(effect.lease, 1, 1, 1 << 40, Before(Tally()), {}, None, [])
                left += self.do(self.runner.on_owner_done(effect, opened, self.now))
            else:
                left.append(effect)
        return left

    def beat(self) -> list[Effect]:
        """Half a second later."""
        self.now += BEAT_S
        self.ask_owned("comet-1")
        effects = self.runner.on_tick(self.now, 0.0)
        (beat,) = [effect for effect in effects if isinstance(effect, BeatNow)]
        rows = Rows({"router-1": Beat("router-1", 1, int(self.now * 2), 0, 1), "router-2": self.other}, self.holdings)
        return self.do([effect for effect in effects if effect is not beat]) + self.do(
            self.runner.on_owner_done(beat, rows, self.now)
        )

    def ask_owned(self, node: str) -> list[Any]:
        return answers(self.runner.on_messages(node, [AskOwned(node)], self.now))

    def publish(self, req: int, shard: str = "shard-1") -> list[Effect]:
        push = Publication(f"id{req}", [STREAM], 5, b"x")
        return self.runner.on_messages("logic-1", [messages.Publish(shard, req, 1, 0, [push])], self.now)

    def done(self, effect: AtShard, result: Any) -> list[Effect]:
        assert not isinstance(effect.effect, type(None))
        return self.do(self.runner.on_done(effect.lease, effect.effect, result, self.now))  # type: ignore[arg-type]


def answers(effects: list[Effect]) -> list[Any]:
    return [m for effect in effects if isinstance(effect, Replies) for _, m in effect.answers]


def at(effects: list[Effect], kind: type[Any]) -> AtShard:
    return next(effect for effect in effects if isinstance(effect, AtShard) and isinstance(effect.effect, kind))


def of(effects: list[Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def events(effects: list[Effect]) -> list[str]:
    return [effect.event for effect in of(effects, Note)]


def settled() -> House:
    """It owns both shards, and a comet and a logic ask."""
    house = House()
    house.beat()
    house.ask_owned("logic-1")
    house.beat()
    assert sorted(house.runner.shards) == SHARDS
    return house


def test_with_the_embedded_log_who_asks_for_another_shard_is_told_and_so_is_the_log() -> None:
    runner: RouterRunner[str] = RouterRunner("shard-1", make, LogClock(0, 0.0, 0.0))
    opened = ShardOpened(Lease("shard-1", 7), 1, 1, 1 << 40, Before(Tally()), {}, None, [])
    assert runner.on_opened(opened, 0.0) == []
    effects = runner.on_messages("logic-1", [messages.AskTime("shard-2", 5), messages.AskTime("shard-1", 6)], 0.0)
    assert [type(m) for m in answers(effects)] == [Moved, messages.LogTime]
    assert events(effects) == ["a router refuses a stream: the topologies differ"]
    assert runner.is_drained


def test_a_start_takes_an_hour_at_most_of_a_clock_that_is_ahead_of_the_others() -> None:
    years_s = 1e9
    runner: RouterRunner[str] = RouterRunner(
        "router-1", make, LogClock(0, years_s, 10.0), Owning("router-1", ["router-1", "router-2"], 0, 10.0)
    )
    (look,) = of(runner.on_tick(10.0, years_s), LookAround)
    rows = Rows({"router-2": Beat("router-2", 1, 1, 5_000, 1)}, {"shard-1": Holding("shard-1", "", 0, 0)})
    assert "log time is not the wall clock's" in events(runner.on_owner_done(look, rows, 11.0))
    assert runner.clock.at(11.0) == 5_000 + 3_600_000


def test_log_time_jumps_only_where_the_owner_changes() -> None:
    house = settled()
    house.other = house.other._replace(time_ms=1 << 50)
    house.beat()

    def ahead_ms() -> list[int]:
        return [house.runner.shards[shard].clock.at(house.now) - int(house.now * 1000) for shard in SHARDS]

    before = ahead_ms()
    house.done(at(house.publish(1), Append), Damaged("shard-1", "a checksum"))
    house.beat()
    assert ahead_ms() == [before[0] + 3_600_000, before[1]]


def test_who_asks_is_told_what_is_here_and_when_that_changes() -> None:
    house = settled()
    (told,) = house.ask_owned("comet-1")
    assert (told.router, told.run, sorted(told.shards)) == ("router-1", 1, [("shard-1", 7), ("shard-2", 7)])
    house.holdings["shard-2"] = Holding("shard-2", "router-2", 1, 9)
    house.other = house.other._replace(is_dead=False)
    effects = house.beat()
    assert of(effects, CloseShard) == [CloseShard(Lease("shard-2", 7))]
    owned = [m for m in answers(effects) if isinstance(m, Owned)]
    assert [m.shards for m in owned] == [[("shard-1", 7)]] * 2
    assert all(m.n > told.n for m in owned)
    moved = answers(house.publish(3, "shard-2"))
    assert moved == [Moved(3, "router-1", "shard-2", 7)]


def test_past_its_deadline_it_says_what_became_of_a_commit_and_nothing_else() -> None:
    house = settled()
    append = at(house.publish(1), Append)
    changes: list[messages.Change] = [messages.Begin(1, 1), messages.Put(2, 9, STREAM[2:], 0, ())]
    said = messages.Changes("shard-1", "comet-1", 1, 7, changes)
    heads = at(house.runner.on_messages("comet-1", [said], house.now), ReadHeads)
    house.now += DEADLINE_S + 0.1
    assert house.publish(2) == []
    assert house.ask_owned("comet-1") == []
    assert answers(house.done(heads, ({STREAM: Head("e", 0, 0)}, {}))) == []
    (told,) = [m for m in answers(house.done(append, [Appended("stored", (1,))])) if not isinstance(m, Owned)]
    assert told.outcomes[0].status == "ok"


def test_past_its_deadline_nobody_can_tell_whether_a_key_is_known() -> None:
    house = settled()
    keyed = Publication("k", [STREAM], 5, b"x", b"digest")
    asked = messages.Publish("shard-1", 4, 1, 0, [keyed])
    append = at(house.runner.on_messages("logic-1", [asked], house.now), Append)
    look_up = at(house.done(append, Unavailable("the log", "full")), LookUp)
    house.now += DEADLINE_S + 0.1
    (told,) = answers(house.done(look_up, None))
    assert told.outcomes[0].status == "unknown"


def drained(house: House) -> list[Effect]:
    """It wants to end, and the other one lives."""
    house.other = house.other._replace(is_dead=False)
    house.beat()
    return house.runner.drain(house.now)


def test_a_shard_is_handed_over_once_nothing_of_it_is_under_way() -> None:
    house = settled()
    append = at(house.publish(1), Append)
    effects = drained(house)
    gives = of(effects, Give)
    assert [give.lease.shard for give in gives] == ["shard-2"]
    assert answers(house.publish(2)) == []  # it is held
    effects = house.done(append, [Appended("stored", (1,))])
    store = at(effects, StoreReceipts)
    assert answers(effects)[0].outcomes[0].status == "ok"
    effects = house.done(store, None)
    (give,) = of(effects, Give)
    assert (give.lease, give.router, give.run) == (Lease("shard-1", 7), "router-2", 1)
    read = messages.Read("shard-1", 5, STREAM, 0, 9, 9)
    assert house.runner.on_messages("comet-1", [read], house.now) == []  # from that statement on it is silent
    effects = house.runner.on_owner_done(give, Lease("shard-1", 9), house.now)
    assert of(effects, CloseShard) == [CloseShard(Lease("shard-1", 7))]
    told = answers(effects)
    assert told[0] == Moved(2, "router-1", "shard-1", 9)  # before they hear that it is elsewhere
    assert isinstance(told[1], Owned)
    house.runner.on_owner_done(gives[0], Lease("shard-2", 9), house.now)
    assert house.runner.is_drained


def test_comets_have_a_moment_to_report() -> None:
    house = settled()
    changes: list[messages.Change] = [messages.Begin(1, 1), messages.Put(2, 9, STREAM[2:], 0, ())]
    house.runner.on_messages("comet-1", [messages.Changes("shard-1", "comet-1", 1, 7, changes)], house.now)
    append = at(house.publish(1), Append)
    house.done(append, [Appended("stored", (1,))])
    assert [give.lease.shard for give in of(drained(house), Give)] == ["shard-2"]
    house.now += REPORT_S - 0.01
    assert of(house.runner.on_tick(house.now, 0.0), Give) == []
    house.now += 0.02
    assert [give.lease.shard for give in of(house.runner.on_tick(house.now, 0.0), Give)] == ["shard-1"]


def test_what_a_shard_has_counted_stays_when_it_goes() -> None:
    house = settled()
    changes: list[messages.Change] = [messages.Begin(1, 1), messages.Put(2, 9, STREAM[2:], 0, ())]
    house.runner.on_messages("comet-1", [messages.Changes("shard-1", "comet-1", 1, 7, changes)], house.now)
    house.done(at(house.publish(1), Append), [Appended("stored", (1,))])
    before = house.runner.counts()
    assert (before.pushes, before.answered["ok"], before.tally.targeted, before.tally.pending) == (1, 1, 1, 1)
    house.done(at(house.publish(2), Append), Damaged("shard-1", "a checksum"))
    after = house.runner.counts()
    assert (after.pushes, after.answered["ok"], after.tally.targeted, after.tally.pending) == (1, 1, 0, 0)


def test_what_cannot_be_handed_over_in_time_stays_and_its_pushes_go_on() -> None:
    house = settled()
    house.publish(1)
    drained(house)
    house.publish(2)
    for _ in range(int(HAND_OVER_S / BEAT_S)):
        house.beat()
    house.now += 0.1
    effects = house.runner.on_tick(house.now, 0.0)
    assert "a shard could not be handed over, and stays" in events(effects)
    assert "shard-1" in house.runner.shards
    effects = house.done(AtShard(Lease("shard-1", 7), Append([], [])), [])
    assert [push.push_id for push in at(effects, Append).effect.pushes] == ["id2"]  # type: ignore[union-attr]


def test_if_nobody_knows_whether_it_was_given_the_rows_decide() -> None:
    house = settled()
    (give, *_) = of(drained(house), Give)
    house.publish(1, give.lease.shard)
    assert house.runner.on_owner_done(give, Unknown("the log", "lost"), house.now) == []
    assert not house.runner.speaks_for(give.lease.shard, house.now)
    effects = house.beat()
    assert "a shard could not be handed over, and stays" in events(effects)
    assert at(effects, Append).lease == give.lease


def test_a_shard_whose_log_is_damaged_is_lost_and_the_node_goes_on() -> None:
    house = settled()
    append = at(house.publish(1), Append)
    effects = house.done(append, Damaged("shard-1", "a checksum"))
    assert of(effects, End) == []
    assert "a shard is lost" in events(effects)
    assert sorted(house.runner.shards) == ["shard-2"]
    house.beat()
    assert sorted(house.runner.shards) == SHARDS  # in a new term

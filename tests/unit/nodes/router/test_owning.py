"""Who owns what: beats, deaths, takeovers and balance, as one router decides them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

from zim.errors import Unavailable
from zim.nodes.effects import Effect, Note
from zim.nodes.router.effects import BeatNow, Bury, CloseShard, Enter, HandOver, LeaveRows, LookAround, OpenShard, Take
from zim.nodes.router.log import Fenced, Lease
from zim.nodes.router.log.shared import Beat, Holding, Rows
from zim.nodes.router.owning import BEAT_S, DEAD_S, DEADLINE_S, GATHER_S, LEFT_S, SETTLED_S, Owning

E = TypeVar("E", bound=Effect)
SHARDS = ["shard-1", "shard-2", "shard-3", "shard-4"]


def all_of(effects: list[Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def first(effects: list[Effect], kind: type[E]) -> E:
    return all_of(effects, kind)[0]


class Table:
    """The rows, and one router that reads them."""

    def __init__(self, last_run: int = 0, routers: Sequence[str] = ("router-1",)) -> None:
        self.now = 10.0
        self.owning = Owning("router-1", routers, last_run, self.now)
        self.beats: dict[str, Beat] = {}
        self.holdings = {shard: Holding(shard, "", 0, 0) for shard in SHARDS}

    def other(self, router: str, run: int = 1, comets: int = 1, beats: int = 1, is_dead: bool = False) -> None:
        """Another router has beaten."""
        number = self.beats[router].number if router in self.beats else 0
        self.beats[router] = Beat(router, run, number + beats, 0, comets, is_dead)

    def give(self, router: str, run: int, *shards: str, term: int = 5) -> None:
        """The rows say that these are its."""
        self.holdings.update((shard, Holding(shard, router, run, term)) for shard in shards)

    def standing(self) -> Rows:
        return Rows(dict(self.beats), dict(self.holdings))

    def enter(self) -> None:
        look = first(self.owning.on_tick(self.now, 0, 1), LookAround)
        enter = first(self.owning.on_done(look, self.standing(), self.now), Enter)
        self.beats["router-1"] = Beat("router-1", 1, 0, 0, 1)
        self.owning.on_done(enter, 1, self.now)

    def beat(self, after_s: float = BEAT_S, comets: int = 1) -> list[Effect]:
        """The next beat, which is answered at once."""
        self.now += after_s
        beat = first(self.owning.on_tick(self.now, 0, comets), BeatNow)
        self.beats["router-1"] = self.beats["router-1"]._replace(
            number=self.beats["router-1"].number + 1, comets=beat.comets
        )
        return self.owning.on_done(beat, self.standing(), self.now)


def take(table: Table, effects: list[Effect], term: int = 7) -> list[Effect]:
    """All that it takes it gets."""
    out: list[Effect] = []
    for effect in all_of(effects, Take):
        shard = effect.holding.shard
        table.holdings[shard] = Holding(shard, "router-1", 1, term)
        out += table.owning.on_done(effect, Lease(shard, term), table.now)
    return out


def test_it_looks_around_enters_beats_and_takes_what_nobody_has() -> None:
    table = Table()
    table.enter()
    effects = table.beat()
    assert [effect.holding.shard for effect in all_of(effects, Take)] == SHARDS
    assert [effect.lease for effect in all_of(take(table, effects), OpenShard)] == [Lease(s, 7) for s in SHARDS]
    assert all_of(table.beat(), Take) == []
    assert sorted(table.owning.leases) == SHARDS


def test_who_has_just_entered_waits_for_others_that_may_be_starting() -> None:
    table = Table(routers=["router-1", "router-2", "router-3"])
    table.other("router-2")
    table.enter()
    assert all_of(table.beat(), Take) == []
    table.other("router-2")
    assert len(all_of(table.beat(after_s=GATHER_S), Take)) == 2
    table = Table(routers=["router-1", "router-2"])
    table.other("router-2")
    table.enter()
    assert len(all_of(table.beat(), Take)) == 2


def test_who_lives_shares_evenly() -> None:
    table = Table()
    table.other("router-2")
    table.enter()
    mine = [effect.holding.shard for effect in all_of(table.beat(), Take)]
    assert len(mine) == 2
    other = Table()
    other.owning.router = "router-2"
    assert len(mine) == len(set(mine))


def test_what_its_next_owner_does_not_take_is_for_anybody() -> None:
    table = Table()
    table.other("router-2")
    table.enter()
    take(table, table.beat())
    until = table.now + LEFT_S
    while table.now + BEAT_S <= until:
        table.other("router-2")
        assert all_of(table.beat(), Take) == []
    table.other("router-2")
    assert len(all_of(table.beat(), Take)) == 2


def test_past_its_deadline_it_is_silent_and_an_answer_gives_it_back() -> None:
    table = Table()
    table.enter()
    table.beat()
    asked_at = table.now
    assert table.owning.may_speak(asked_at + DEADLINE_S)
    assert not table.owning.may_speak(asked_at + DEADLINE_S + 0.001)
    table.now += 4.0
    beat = first(table.owning.on_tick(table.now, 0, 1), BeatNow)
    assert first(table.owning.on_done(beat, Unavailable("the log", "away"), table.now + 0.5), Note)
    assert not table.owning.may_speak(table.now + 0.5)
    table.beat(after_s=1.0)
    assert table.owning.may_speak(table.now)
    # It counts from when it was asked, not from when the answer came.
    table.now += BEAT_S
    beat = first(table.owning.on_tick(table.now, 0, 1), BeatNow)
    table.owning.on_done(beat, table.standing(), table.now + 1.5)
    assert not table.owning.may_speak(table.now + DEADLINE_S + 0.001)


def test_a_beat_that_stands_still_is_that_of_the_dead() -> None:
    table = Table()
    table.other("router-2")
    table.give("router-2", 1, *SHARDS)
    table.enter()
    began = table.now
    while table.now + BEAT_S < began + DEAD_S:
        assert all_of(table.beat(), Bury) == []
    (bury,) = all_of(table.beat(), Bury)
    assert bury.beat == table.beats["router-2"]
    assert all_of(table.beat(), Bury) == []  # it is under way
    table.owning.on_done(bury, True, table.now)
    table.other("router-2", beats=0, is_dead=True)
    assert len(all_of(table.beat(), Take)) == len(SHARDS)


def test_who_beats_lives_however_slowly_we_look() -> None:
    table = Table()
    table.other("router-2")
    table.give("router-2", 1, *SHARDS)
    table.enter()
    for _ in range(5):
        table.other("router-2")
        effects = table.beat(after_s=9.0)  # we stood still
        assert all_of(effects, Bury) + all_of(effects, Take) == []


def test_who_was_declared_dead_gives_up_all_and_enters_anew() -> None:
    table = Table()
    table.enter()
    take(table, table.beat())
    table.now += BEAT_S
    beat = first(table.owning.on_tick(table.now, 0, 1), BeatNow)
    effects = table.owning.on_done(beat, Fenced("dead"), table.now)
    assert len(all_of(effects, CloseShard)) == len(SHARDS)
    assert (table.owning.run, table.owning.leases) == (0, {})
    assert not table.owning.may_speak(table.now + 0.001)
    assert all_of(table.owning.on_tick(table.now, 0, 1), LookAround)


@pytest.mark.parametrize(("last_run", "waits"), [(0, True), (3, True), (4, False)])
def test_a_name_that_lives_elsewhere_is_waited_for(last_run: int, waits: bool) -> None:
    table = Table(last_run)
    table.other("router-1", run=4)
    look = first(table.owning.on_tick(table.now, 0, 1), LookAround)
    effects = table.owning.on_done(look, table.standing(), table.now)
    assert bool(all_of(effects, Enter)) != waits
    for _ in range(20):  # it beats on and on
        table.now += BEAT_S
        table.other("router-1", run=4)
        if waits:
            look = first(table.owning.on_tick(table.now, 0, 1), LookAround)
            assert all_of(table.owning.on_done(look, table.standing(), table.now), Enter) == []
    if waits:
        table.now += DEAD_S + 0.01
        look = first(table.owning.on_tick(table.now, 0, 1), LookAround)
        assert all_of(table.owning.on_done(look, table.standing(), table.now), Enter)


def test_what_is_another_s_now_is_closed_and_what_is_ours_is_opened_once() -> None:
    table = Table()
    table.other("router-2")
    table.enter()
    take(table, table.beat())
    mine = sorted(table.owning.leases)
    table.give("router-2", 1, mine[0], term=9)
    assert [effect.lease for effect in all_of(table.beat(), CloseShard)] == [Lease(mine[0], 7)]
    table.give("router-1", 1, mine[0], term=11)
    assert [effect.lease for effect in all_of(table.beat(), OpenShard)] == [Lease(mine[0], 11)]
    assert all_of(table.beat(), OpenShard) == []


def test_rows_that_are_older_than_what_we_know_take_nothing_away() -> None:
    table = Table()
    table.enter()
    effects = table.beat()
    before = table.standing()
    take(table, effects)
    table.now += BEAT_S
    beat = first(table.owning.on_tick(table.now, 0, 1), BeatNow)
    assert all_of(table.owning.on_done(beat, before, table.now), CloseShard) == []
    lease = table.owning.leases["shard-1"]
    table.owning.lost(lease)  # given away, and the rows that we read do not know it yet
    assert all_of(table.beat(), OpenShard) == []


def test_what_could_not_be_opened_is_taken_anew() -> None:
    table = Table()
    table.enter()
    take(table, table.beat())
    table.owning.lost(table.owning.leases["shard-2"])
    (again,) = all_of(table.beat(), Take)
    assert again.holding == table.holdings["shard-2"]


def test_who_has_two_more_gives_one_away_to_who_has_lived_for_long() -> None:
    table = Table()
    table.enter()
    take(table, table.beat())
    table.other("router-2")
    until = table.now + SETTLED_S
    while table.now + BEAT_S <= until:
        table.other("router-2")
        assert all_of(table.beat(), HandOver) == []
    table.beat()
    table.other("router-2")
    table.beat()
    assert len(table.owning.giving) == 1
    table.other("router-2")
    assert all_of(table.beat(), HandOver) == []  # one at a time
    assert list(table.owning.giving.values()) == ["router-2"]


def test_who_hears_no_comet_gives_all_away() -> None:
    table = Table()
    table.other("router-2")
    table.enter()
    take(table, table.beat())
    table.other("router-2")
    effects = table.beat(comets=0)
    assert {effect.to for effect in all_of(effects, HandOver)} == {"router-2"}
    assert len(all_of(effects, HandOver)) == len(table.owning.leases)


def test_if_nobody_hears_a_comet_nothing_is_given() -> None:
    table = Table()
    table.other("router-2", comets=0)
    table.enter()
    take(table, table.beat(comets=0))
    table.other("router-2", comets=0)
    assert all_of(table.beat(comets=0), HandOver) == []


def test_who_leaves_gives_to_those_who_stay_and_is_given_nothing() -> None:
    table = Table()
    for router in ("router-2", "router-3"):
        table.other(router)
    table.enter()
    take(table, table.beat())
    effects: list[Any] = table.owning.leave(table.now)
    assert {effect.to for effect in all_of(effects, HandOver)} <= {"router-2", "router-3"}
    assert len(effects) == len(table.owning.leases)
    table.beat()
    assert table.beats["router-1"].comets == 0
    assert table.owning.gone() == [LeaveRows(1)]
    assert table.owning.gone() == []


def test_nothing_is_given_to_a_router_that_hears_fewer_comets() -> None:
    """Its machine may have a new topology that others do not have yet."""
    table = Table()
    table.enter()
    take(table, table.beat(comets=3))
    for comets in (1, 3):
        until = table.now + SETTLED_S + 1
        given: list[Effect] = []
        while table.now < until and not given:
            table.other("router-2", comets=comets)
            given = all_of(table.beat(comets=3), HandOver)
        assert bool(given) == (comets == 3)

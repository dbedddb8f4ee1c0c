"""Drains and restarts, as the supervisor decides them: no process, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.supervisor.drains import comet_loads, objections, shares
from zim.supervisor.rolling import BACK_S, EXCUSED_S, STUCK_S, WHOLE_S, Action, DrainNode, Rolling, Say, StartNode
from zim.supervisor.standing import Standing
from zim.topology import Topology, parse

KINDS = ("router", "job", "logic", "comet")


def topology(shared: bool = False, **counts: int) -> Topology:
    lines = ["[fabric]", 'name = "t"', 'data_dir = "var"']
    port = 7000
    for kind in KINDS:
        for n in range(counts.get(kind, 2)):
            lines += [f"[[{kind}]]", f"id = {n + 1}", f'bind = "tcp://127.0.0.1:{port}"']
            lines += {"logic": [f'http = "127.0.0.1:{port + 500}"'], "comet": [f'tcp = "127.0.0.1:{port + 500}"']}.get(
                kind, []
            )
            port += 1
    found = parse("\n".join(lines), Path("/t/topology.toml"))
    return replace(found, log=object()) if shared else found  # type: ignore[arg-type]


class House:
    """A fabric that does what it is told, unless a test meddles.

    Attributes:
        seen: how its nodes are; now: monotonic.
        moved: how often clients of comets were moved, all together.
    """

    def __init__(self, clients: int = 100, **counts: int) -> None:
        self.seen = {
            f"{kind}-{n}": Standing(
                f"{kind}-{n}", kind, "ready", 0.0, 1, 100 + 10 * KINDS.index(kind) + n, told={"version": "1"}
            )
            for kind in KINDS
            for n in range(1, counts.get(kind, 2) + 1)
        }
        self.now = 0.0
        self.moved = 0
        self.said: list[str] = []
        self.drained: list[str] = []
        self.stays_away: set[str] = set()
        for one in self.seen.values():
            if one.kind == "comet":
                self.tell(one.name, connections=clients)

    def tell(self, name: str, **more: Any) -> None:
        self.seen[name].told = {**self.seen[name].told, **more}

    def rolling(self, *pausing: str) -> Rolling:
        return Rolling([(one.name, one.kind) for one in self.seen.values()], pausing, self.now)

    def do(self, action: Action) -> None:
        match action:
            case DrainNode(name=name, shares=where):
                self.drained.append(name)
                one = self.seen[name]
                one.state = "draining"
                self._move(name, where)
                if name not in self.stays_away:
                    one.state = "drained"
            case StartNode(name=name):
                one = self.seen[name]
                one.state, one.starts, one.pid = "ready", one.starts + 1, one.pid + 1000
                one.told = {"version": "2"} | ({"connections": 0} if one.kind == "comet" else {})
            case Say(text=text):
                self.said.append(text)

    def _move(self, name: str, where: Mapping[str, float]) -> None:
        clients = int(self.seen[name].number("connections"))
        total = sum(where.values())
        for to, share in where.items():
            part = round(clients * share / total)
            self.tell(to, connections=int(self.seen[to].number("connections")) + part)
            self.moved += part

    def step(self, rolling: Rolling, seconds: float = 0.25) -> list[Action]:
        self.now += seconds
        actions = rolling.step(self.seen, self.now)
        for action in actions:
            self.do(action)
        return actions

    def run(self, rolling: Rolling) -> None:
        for _ in range(1000):
            if rolling.is_over:
                return
            self.step(rolling)
        raise AssertionError(self.said)


def test_one_node_at_a_time_is_restarted_in_the_order_of_the_words_that_they_say() -> None:
    house = House()
    rolling = house.rolling()
    house.run(rolling)
    assert rolling.why == ""
    assert [name.split("-")[0] for name in house.drained] == ["router"] * 2 + ["job"] * 2 + ["logic"] * 2 + [
        "comet"
    ] * 2
    assert all((one.state, one.starts) == ("ready", 2) for one in house.seen.values())
    assert house.said[-1] == "all is new: 8 restarted"


@pytest.mark.parametrize("comets", [2, 3, 5, 8])
def test_only_the_clients_of_the_first_comet_are_moved_twice(comets: int) -> None:
    house = House(clients=120, comet=comets)
    house.run(house.rolling())
    assert house.moved <= 120 * comets * (1 + 1 / comets) + comets


def test_clients_go_to_comets_that_are_new_even_if_those_have_more() -> None:
    house = House(clients=10, comet=3)
    rolling = house.rolling()
    while "comet-1" not in rolling.done:
        house.step(rolling)
    house.tell("comet-1", connections=1000)
    while len(house.drained) < 8:
        house.step(rolling)
    assert house.seen["comet-1"].number("connections") > 1000


def test_the_comet_with_the_fewest_clients_is_first() -> None:
    house = House(comet=3)
    house.tell("comet-2", connections=3)
    house.run(house.rolling())
    assert house.drained[-3] == "comet-2"


def test_clients_are_spread_over_those_that_are_new() -> None:
    house = House(clients=120, comet=4)
    house.run(house.rolling())
    loads = sorted(int(one.number("connections")) for one in house.seen.values() if one.kind == "comet")
    assert loads[0] == 0  # the last one: to fill it, others would have to be moved again
    assert loads[-1] - loads[1] <= 3


@pytest.mark.parametrize(
    ("name", "state", "words"),
    [("comet-2", "down", "comet-2 is down (SIGKILL)"), ("job-1", "given up", "job-1 is given up (SIGKILL)")],
)
def test_it_stops_when_another_node_is_down_and_calls_back_who_is_away(name: str, state: Any, words: str) -> None:
    house = House()
    house.stays_away = {"router-1"}
    rolling = house.rolling()
    house.step(rolling)
    assert house.seen["router-1"].state == "draining"
    house.seen[name].move(state, 0.0, "SIGKILL")
    actions = house.step(rolling)
    assert StartNode("router-1") in actions
    assert (rolling.is_over, rolling.why) == (True, words)
    assert house.drained == ["router-1"]


def test_it_stops_when_publishers_are_refused_and_not_where_that_was_agreed_to() -> None:
    for pausing, is_fine in [(("router-1", "router-2"), True), ((), False)]:
        house = House()
        house.tell("logic-1", failed=7)  # long ago
        house.stays_away = {"router-1"}
        rolling = house.rolling(*pausing)
        house.step(rolling)
        house.tell("logic-1", failed=9)
        house.step(rolling)
        house.seen["router-1"].state = "drained"
        house.run(rolling)
        assert (rolling.why == "") == is_fine
        if not is_fine:
            assert rolling.why == "publishers were told of 2 failed pushes (503 or 504)"


def test_what_is_told_late_of_an_agreed_pause_is_excused_for_a_while() -> None:
    house = House()
    rolling = house.rolling("router-1", "router-2")
    while rolling.done != ["router-1"]:
        house.step(rolling)
    house.tell("logic-1", failed=1)
    house.step(rolling)
    assert not rolling.is_over
    while rolling.name != "job-1":
        house.step(rolling)
    house.tell("logic-1", failed=2)
    house.step(rolling, EXCUSED_S)
    assert rolling.why == "publishers were told of 1 failed push (503 or 504)"


def test_a_logic_that_was_restarted_counts_anew() -> None:
    house = House()
    house.tell("logic-1", failed=7)
    house.tell("logic-2", failed=7)
    rolling = house.rolling()
    house.run(rolling)
    assert rolling.why == ""
    house = House()
    house.tell("logic-1", failed=7)
    rolling = house.rolling()
    while rolling.name != "logic-2":
        house.step(rolling)
    house.tell("logic-1", failed=1)  # of its second process
    house.step(rolling)
    assert rolling.is_over


def test_a_node_that_does_not_come_back_is_the_end() -> None:
    house = House()
    rolling = house.rolling()
    while "router-1" not in house.drained:
        house.step(rolling)
    house.step(rolling)
    house.seen["router-1"].move("starting", 0.0)
    house.step(rolling)
    assert not rolling.is_over
    house.step(rolling, BACK_S)
    assert rolling.why == f"router-1 is away for {BACK_S:g} s: router-1 is starting"
    assert house.drained == ["router-1"]


def test_nothing_is_begun_before_all_is_whole() -> None:
    house = House()
    house.tell("comet-1", missing=["not registered with router-1"])
    rolling = house.rolling()
    for _ in range(10):
        house.step(rolling)
    assert house.drained == []
    house.step(rolling, WHOLE_S)
    assert rolling.why == f"comet-1: not registered with router-1, for {WHOLE_S:g} s"
    house = House()
    house.tell("router-2", comets=0)
    rolling = house.rolling()
    house.step(rolling)
    assert house.drained == []
    house.tell("router-2", comets=2)
    house.step(rolling)
    assert house.drained == ["router-1"]


def test_a_drain_that_goes_on_is_waited_for_and_one_that_hangs_is_not() -> None:
    house = House()
    rolling = house.rolling()
    while not house.drained or house.drained[-1] != "job-2":
        house.step(rolling)
    house.stays_away = {"comet-1", "comet-2"}
    while rolling.name not in house.stays_away:
        house.step(rolling)
    away = rolling.name
    for clients in range(100, 0, -10):
        house.tell(away, connections=clients)
        house.step(rolling, STUCK_S - 1)
    assert not rolling.is_over
    house.step(rolling, STUCK_S + 1)
    assert rolling.why == f"{away} drains, and does not come to an end"


def test_it_can_be_stopped_and_who_is_away_comes_back_first() -> None:
    house = House()
    rolling = house.rolling()
    house.step(rolling)
    rolling.stop()
    house.run(rolling)
    assert (rolling.done, rolling.why) == (["router-1"], "as it was asked to")
    assert house.seen["router-1"].starts == 2


def test_who_was_drained_before_is_left_alone() -> None:
    house = House()
    house.seen["comet-2"].move("drained", 0.0)
    for name in ("job-1", "job-2"):
        house.tell(name, missing=["comet-2 is not connected"])  # nobody waits for that
    rolling = Rolling([(one.name, one.kind) for one in house.seen.values() if one.name != "comet-2"], (), 0.0)
    house.run(rolling)
    assert rolling.why == ""
    assert house.seen["comet-2"].state == "drained"


# ---------------------------------------------------------------- where clients go


@given(st.integers(1, 10_000), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10_000), min_size=1))
def test_shares_fill_up_those_who_have_the_fewest(clients: int, loads: dict[str, int]) -> None:
    found = shares(clients, loads)
    assert sum(found.values()) == pytest.approx(clients)
    after = {name: load + found.get(name, 0) for name, load in loads.items()}
    filled = [after[name] for name in found]
    assert max(filled) == pytest.approx(min(filled))
    assert all(load >= max(filled) - 1e-6 for name, load in loads.items() if name not in found)


def test_with_nobody_to_go_all_are_alike() -> None:
    assert shares(0, {"a": 1, "b": 9}) == {"a": 1.0, "b": 1.0}
    assert shares(5, {}) == {}


def test_clients_go_to_comets_that_are_ready() -> None:
    house = House(comet=4)
    house.seen["comet-2"].move("drained", 0.0)
    house.seen["comet-3"].move("starting", 0.0)
    assert comet_loads(house.seen.values(), "comet-1") == {"comet-4": 100}


# ---------------------------------------------------------------- what is to be said before


@pytest.mark.parametrize("name", ["logic-1", "job-1", "comet-1"])
def test_the_last_of_a_kind_is_drained_only_with_consent(name: str) -> None:
    two, one = topology(), topology(logic=1, job=1, comet=1)
    seen = House().seen
    assert objections(two, seen, name) == []
    assert objections(one, seen, name)[0].startswith(f"without {name} ")
    other = name.replace("1", "2")
    seen[other].move("drained", 0.0)
    assert objections(two, seen, name) != []
    del seen[other]  # it runs on another machine
    assert objections(two, seen, name) == []


def test_a_router_hands_over_where_the_log_is_shared_and_another_is_there() -> None:
    seen = House().seen
    assert "they pause until it is back" in objections(topology(), seen, "router-1")[0]
    assert objections(topology(shared=True), seen, "router-1") == []
    assert objections(topology(shared=True, router=1), seen, "router-1")[0].startswith("without router-1 ")

"""Who is reached from where."""

from __future__ import annotations

from tests.unit.topology.test_file import PATH, on_two_hosts, text_of
from zim.topology import out_of_reach, parse


def test_nodes_on_another_machine_do_not_reach_an_address_of_this_one() -> None:
    """Router and logic are on a, job and comet on b."""
    told = list(out_of_reach(parse(text_of(on_two_hosts()), PATH)))
    names = [text.partition(" is ")[0] for text in told]
    assert names == ["router-1.bind", "job-1.bind", "logic-1.bind"]
    assert told[0].startswith(
        "router-1.bind is tcp://127.0.0.1:7270, which is this machine for whoever calls it: nodes"
    )
    assert "nodes on b do not reach a by it" in told[0]


def test_on_one_machine_and_by_names_all_are_reached() -> None:
    tables = on_two_hosts()
    for kind in ("router", "logic", "job"):
        tables[kind][0]["advertise"] = f"tcp://{kind}.example:7000"
    assert list(out_of_reach(parse(text_of(tables), PATH))) == []
    for kind in ("router", "logic", "job", "comet"):
        tables[kind][0] = {key: value for key, value in tables[kind][0].items() if key not in ("host", "advertise")}
    assert list(out_of_reach(parse(text_of(tables), PATH))) == []

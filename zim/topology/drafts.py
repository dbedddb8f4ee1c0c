"""Nodes as a topology describes them, as far as their values are right; and what is wrong between them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

from zim.topology.endpoints import Endpoint
from zim.topology.nodes import ListenAddress, Listeners
from zim.topology.tables import Table

# Who opens a connection to whom, so whom it must be able to reach.
CONNECTS_TO = {"logic": ("router",), "router": ("job",), "job": ("comet",), "comet": ("logic", "router")}


@dataclass(frozen=True)
class Draft:
    """A node as far as its values are right."""

    kind: str
    table: Table
    values: dict[str, Any]

    @property
    def endpoints(self) -> list[tuple[str, Endpoint]]:
        """What it binds: the key of each in its table, such as `ws` or `ws[1]`, and the address."""
        return [found for key in self.values for found in endpoints_at(self.table, key, self.values[key])]

    @property
    def host(self) -> str:
        """The machine that it runs on; "" for the only one."""
        return str(self.values.get("host") or "")


def check_together(drafts: list[Draft]) -> None:
    """Notes what is wrong between the nodes of a fabric, each problem in the table of one of them."""
    _check_ids(drafts)
    _check_advertised(drafts)
    _check_hosts(drafts)
    _check_clashes(drafts)


def listeners_at(table: Table, key: str, value: object) -> list[tuple[str, ListenAddress]]:
    """The listeners that the value of a key has, each with its own key: `ws`, or `ws[0]`, `ws[1]` if it is an array."""
    if isinstance(value, ListenAddress):
        return [(key, value)]
    if not isinstance(value, tuple) or not all(isinstance(one, ListenAddress) for one in value):
        return []
    is_array = isinstance(table.values[key], list)
    return [(f"{key}[{i}]" if is_array else key, one) for i, one in enumerate(value)]


def endpoints_at(table: Table, key: str, value: object) -> list[tuple[str, Endpoint]]:
    """Their addresses."""
    return [(at, listener.parsed) for at, listener in listeners_at(table, key, value)]


def check_admin(table: Table, admin: Listeners, drafts: list[Draft]) -> None:
    """Notes what clashes with an address of the supervisor, which runs on every host; two of its own, too.

    Args:
        table: `[fabric]`.
    """
    own = endpoints_at(table, "admin", admin)
    taken = [(draft.table.path(key), endpoint) for draft in drafts for key, endpoint in draft.endpoints]
    for i, (key, endpoint) in enumerate(own):
        for path, other in [*taken, *((table.path(k), e) for k, e in own[:i])]:
            if endpoint.clashes(other):
                table.add(key, f"takes port {endpoint.port} as {path} does; right is another one")


def _check_ids(drafts: list[Draft]) -> None:
    first: dict[tuple[str, int], Draft] = {}
    for draft in drafts:
        if (number := draft.values.get("id")) is not None:
            earlier = first.setdefault((draft.kind, number), draft)
            if earlier is not draft:
                draft.table.add("id", f"{number} is the id of {earlier.table.key} already; right is another one")


def _check_advertised(drafts: list[Draft]) -> None:
    first: dict[object, Draft] = {}
    for draft in drafts:
        if address := draft.values.get("advertise"):
            earlier = first.setdefault(address, draft)
            if earlier is not draft:
                where = earlier.table.path("advertise")
                draft.table.add("advertise", f'"{address}" is {where} already; right is where this node is reached')


def _check_hosts(drafts: list[Draft]) -> None:
    hosts = {draft.host for draft in drafts}
    if hosts <= {""}:
        return
    for draft in drafts:
        if "host" not in draft.table.values:
            draft.table.add("host", "is missing; once one node has a host every node needs one, or none would start it")
        callers = {d.host for d in drafts if draft.kind in CONNECTS_TO[d.kind] and d.host}
        bind = dict(draft.endpoints).get("bind")
        if bind and bind.is_wildcard and "advertise" not in draft.table.values and callers - {draft.host}:
            draft.table.add(
                "advertise",
                f"is missing; nodes on {', '.join(sorted(callers - {draft.host}))} cannot connect to a bind of every"
                f' address; right is the one that they reach, such as "tcp://10.0.0.3:{bind.port}"',
            )


def _check_clashes(drafts: list[Draft]) -> None:
    bound = [(draft, key, endpoint) for draft in drafts for key, endpoint in draft.endpoints]
    for (one, one_key, one_endpoint), (two, two_key, two_endpoint) in combinations(bound, 2):
        if one.host == two.host and one_endpoint.clashes(two_endpoint):
            what = f"port {two_endpoint.port}" if two_endpoint.port else two_endpoint.host
            two.table.add(two_key, f"takes {what} as {one.table.path(one_key)} does; right is another one")

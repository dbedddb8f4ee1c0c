"""Which listeners strangers can reach, and whether what is behind them knows who they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zim.topology.drafts import CONNECTS_TO, Draft, listeners_at
from zim.topology.endpoints import parse_link
from zim.topology.identity import Identity
from zim.topology.links import Links
from zim.topology.nodes import ListenAddress, Listeners, Node, Topology
from zim.topology.tables import Table

_CLIENTS = "the token handler believes everybody, as there is no [[issuer]] and no [callout]"
_WHY_LOCAL = {
    "http": "the HTTP API believes everybody who reaches it, as there is no [[api_key]]",
    "publish": "publishers are believed, as there is no [[api_key]]",
    "tcp": _CLIENTS,
    "ws": _CLIENTS,
    "bind": "links between nodes are not encrypted, as there is no [links]",
    "admin": "it tells everybody who reaches it how the node fares, as there is no [[api_key]]",
}

_OR = {"bind": ' give nodes link keys: [links] with keys = "link-keys", and zim link-key make,'}


def check(
    fabric: Table | None, admin: object, drafts: Iterable[Draft], identity: Identity | None, links: Links
) -> None:
    """Notes listeners that may not be where they are, and what they say of themselves that cannot be.

    Args:
        fabric: `[fabric]`, and admin its key of that name.
    """
    if fabric is not None:
        _check_all(fabric, "admin", admin, identity, links)
    for draft in drafts:
        for kind in _WHY_LOCAL:
            _check_all(draft.table, kind, draft.values.get(kind), identity, links)


def _check_all(table: Table, kind: str, value: object, identity: Identity | None, links: Links) -> None:
    for key, listener in listeners_at(table, kind, value):
        if identity is not None or kind == "bind":
            _check_reach(table, key, kind, listener, identity or Identity(), links)
        if identity is not None:
            _check_people(table, key, listener, identity)
        _check_proxies(table, key, kind, listener)


def is_open(kind: str, listener: ListenAddress, identity: Identity, links: Links) -> bool:
    """Whether strangers can reach it, and nobody asks who they are. kind: its key, such as "ws"."""
    if not listener.is_reachable or listener.insecure:
        return False
    knows = {"tcp": identity.knows_clients, "ws": identity.knows_clients, "bind": links.keys is not None}
    return not knows.get(kind, bool(identity.api_keys))


def out_of_reach(topology: Topology) -> Iterator[str]:
    """Nodes whose address means another machine to those who call them from there, for people."""
    for node in topology.nodes:
        callers = {one.host for one in topology.nodes if node.kind in CONNECTS_TO[one.kind]} - {node.host}
        if callers and parse_link(node.endpoint).is_local:
            key = "advertise" if node.advertise else "bind"
            yield (
                f"{node.name}.{key} is {node.endpoint}, which is this machine for whoever calls it: nodes on"
                f" {', '.join(sorted(callers))} do not reach {node.host} by it, unless these are one machine"
            )


def still_open(topology: Topology) -> Iterator[str]:
    """What of a topology that is made of two would let strangers in, for people."""
    found = [("fabric", "admin", topology.admin)]
    found += [(node.name, kind, at) for node in topology.nodes for kind in _WHY_LOCAL if (at := listeners(node, kind))]
    for name, kind, at in found:
        for one in at:
            if is_open(kind, one, topology.identity, topology.links):
                yield f"{name}.{kind}: {one.address} stays until a restart, and {_WHY_LOCAL[kind]}"


def listeners(node: Node, kind: str) -> Listeners:
    """Where a node listens, by a key of its table; none if it has no such key."""
    found = getattr(node, kind, None) or ()
    return (found,) if isinstance(found, ListenAddress) else found


def _check_reach(table: Table, key: str, kind: str, listener: ListenAddress, identity: Identity, links: Links) -> None:
    if not is_open(kind, listener, identity, links):
        return
    answer = f'{{ address = "{listener.address}", insecure = true }}'
    how, instead = "from other machines", f"Listen on 127.0.0.1,{_OR.get(kind, '')} or"
    if listener.parsed.is_local:
        how, instead = ("through a proxy", "Say who may come in, docs/how-to/jwt.md and keys.md, or")
    table.add(
        key,
        f"{listener.address} can be reached {how}, and {_WHY_LOCAL[kind]}. {instead}"
        f" answer for it: {answer if key != kind else f'{kind} = {answer}'}",
    )


def _check_proxies(table: Table, key: str, kind: str, listener: ListenAddress) -> None:
    if listener.proxy_protocol and not listener.proxies and not listener.parsed.is_local:
        why = 'is believed from anywhere; right is proxies on this listener, such as ["10.0.0.7"]'
        table.add(f"{key}.proxy_protocol", why)
    if listener.proxies and kind == "tcp" and not listener.proxy_protocol:
        why = "have no way to say for whom they speak; right is proxy_protocol = true beside them"
        table.add(f"{key}.proxies", why)


def _check_people(table: Table, key: str, listener: ListenAddress, identity: Identity) -> None:
    if listener.anonymous and identity.anonymous is None:
        why = "lets people in without a token, and nothing says what they may; right is a table [anonymous]"
        table.add(f"{key}.anonymous", why)
    if listener.cookie and not identity.knows_tokens:
        table.add(f"{key}.cookie", "has a token that nobody knows; right is an [[issuer]] or a [callout]")
    if listener.cookie and (not listener.origins or "*" in listener.origins):
        table.add(
            f"{key}.cookie",
            "is sent by browsers for any page, so the pages must be named; right is origins on this listener, such as"
            ' ["https://app.example.com"]',
        )

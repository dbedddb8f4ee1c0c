"""What a fabric that runs may take over from a changed topology, and what waits for a restart. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple, TypeVar

from zim.errors import TopologyError
from zim.fabric.ceilings import Ceilings
from zim.fabric.retention import Retention
from zim.topology import log
from zim.topology.identity import Identity
from zim.topology.links import differences
from zim.topology.nodes import Comet, Job, Listeners, Logic, Node, Router, Topology
from zim.topology.reach import still_open

# What is read anew whenever it is looked at, or handed to who looks at it.
_LIVE: dict[type[Node], tuple[str, ...]] = {
    Router: (),
    Job: (),
    Logic: ("http_timeout_s", "http_idle_s", "goim_key_header"),
    Comet: (
        "max_connections",
        "max_packet_bytes",
        "handshake_timeout_s",
        "heartbeat_s",
        "outbox_bytes",
        "slow_consumer",
        "max_memory_bytes",
        "drain_per_s",
    ),
}
_LISTENERS = ("http", "tcp", "ws", "admin")
# Of a listener: whom it lets in, and how it shows who it is.
_NO_RULES: dict[str, Any] = {"insecure": False, "origins": (), "hosts": (), "anonymous": False, "cookie": ""}
_NO_RULES |= {"tls": (), "proxies": (), "proxy_protocol": False, "client_header": "", "public": ""}

N = TypeVar("N", bound=Node)


class TopologyChange(NamedTuple):
    """What differs between two topologies.

    Attributes:
        topology: the old one, with all of the new one that is taken over.
        taken: keys that are; waiting: keys that need a restart of the fabric. Neither has values.
    """

    topology: Topology
    taken: tuple[str, ...]
    waiting: tuple[str, ...]


def compare(old: Topology, new: Topology) -> TopologyChange:
    """What of a new topology a fabric takes over that runs with the old one.

    Raises:
        TopologyError: both are right, and the mixture would let strangers in; or there is one more router with a log of
            its own.
    """
    if old.log is None and new.log is None and (more := {r.name for r in new.routers} - {r.name for r in old.routers}):
        why = "it would take streams from the others, whose logs are their own; take it out again"
        raise TopologyError([f"{name}: no such router can be added: {why}" for name in sorted(more)])
    taken: list[str] = []
    waiting: list[str] = []
    live: dict[str, Any] = {"digest": new.digest}
    if old.log_level != new.log_level:
        live["log_level"] = new.log_level
        taken.append("fabric.log_level")
    live["admin"] = _listeners("fabric.admin", old.admin, new.admin, taken, waiting)
    fixed = ("name", "data_dir", "max_body_bytes", "idempotency_s", "receipts_s")
    waiting += [f"fabric.{key}" for key in fixed if getattr(old, key) != getattr(new, key)]
    if old.retention != new.retention:
        if _keeps_what_is_live_only(old.retention, new.retention):
            live["retention"] = new.retention
            taken.append("retention")
        else:
            waiting.append("retention, for some streams become live only, or durable")
    if old.links.keys == new.links.keys:
        live["links"] = new.links
        taken += differences(old.links, new.links)
    else:
        waiting.append("links.keys")
    waiting += log.differences(old.log, new.log)
    live["identity"] = new.identity
    taken += _identity(old.identity, new.identity)
    live["limits"] = new.limits
    taken += [
        f"limits.{f.name}" for f in fields(Ceilings) if getattr(old.limits, f.name) != getattr(new.limits, f.name)
    ]
    owners = {node.endpoint: node.name for node in old.nodes}

    def unwanted(node: Node) -> str:
        if isinstance(node, Router) and old.log != new.log:
            return "it is for the new log"
        return f"{owners[node.endpoint]} has its address" if node.endpoint in owners else ""

    for kind in ("routers", "logics", "jobs", "comets"):
        live[kind] = tuple(_nodes(getattr(old, kind), getattr(new, kind), unwanted, taken, waiting))
    mixed = replace(old, **live)
    if problems := list(still_open(mixed)):
        raise TopologyError(problems)
    return TopologyChange(mixed, tuple(taken), tuple(waiting))


def believed_from_now_on(old: Identity, new: Identity) -> tuple[str, ...]:
    """Who has to prove nothing any more that had to, for people; nobody, as a rule."""
    found = []
    if old.knows_clients and not new.knows_clients:
        found.append(
            "every client is believed, whoever it says it is, for no [[issuer]], [callout] or [anonymous] is left"
        )
    if old.api_keys and not new.api_keys:
        found.append("whoever reaches the HTTP API or `publish` may do all without a key, for no [[api_key]] is left")
    return tuple(found)


def _nodes(
    old: Sequence[N], new: Sequence[N], unwanted: Callable[[N], str], taken: list[str], waiting: list[str]
) -> Iterator[N]:
    """unwanted: why one that is new has to wait, in words; "" if it has not."""
    named = {node.name: node for node in new}
    for node in old:
        found = named.pop(node.name, None)
        if found is None:
            waiting.append(f"{node.name}, which is no more there")
            yield node
        else:
            yield _node(node, found, taken, waiting)
    for node in named.values():
        if why := unwanted(node):
            waiting.append(f"{node.name}, which is new: {why}")
        else:
            taken.append(f"{node.name}, added")
            yield node


def _node(old: N, new: N, taken: list[str], waiting: list[str]) -> N:
    live: dict[str, Any] = {}
    for key in [one.name for one in fields(old)]:
        before, after = getattr(old, key), getattr(new, key)
        if before == after:
            continue
        if key in _LISTENERS:
            live[key] = _listeners(f"{old.name}.{key}", before, after, taken, waiting)
        elif key in _LIVE[type(old)]:
            live[key] = after
            taken.append(f"{old.name}.{key}")
        else:
            waiting.append(f"{old.name}.{key}")
    return replace(old, **live)


def _listeners(key: str, old: Listeners, new: Listeners, taken: list[str], waiting: list[str]) -> Listeners:
    """Those that listen where they did are taken over, with whom they let in."""
    if old == new:
        return old
    same = [replace(one, **_NO_RULES) for one in old] == [replace(one, **_NO_RULES) for one in new]
    (taken if same else waiting).append(key)
    return new if same else old


def _keeps_what_is_live_only(old: Retention, new: Retention) -> bool:
    """Whether each stream is live only that was, and no other, whatever its name."""

    def of_rooms(rules: Retention) -> list[object]:
        found = [(known.rooms, known.rule.is_live_only) for known in rules.classes]
        whole: list[object] = [*found, rules.rooms.is_live_only]
        alike = {is_live_only for _, is_live_only in found} | {rules.rooms.is_live_only}
        return list(alike) if len(alike) == 1 else whole  # which pattern it is makes no difference then

    def of_others(rules: Retention) -> tuple[bool, bool]:
        return rules.users.is_live_only, rules.everybody.is_live_only

    return of_others(old) == of_others(new) and of_rooms(old) == of_rooms(new)


def _identity(old: Identity, new: Identity) -> Iterator[str]:
    """What is new about who may come in."""
    yield from _named("issuer", {one.issuer: one for one in old.issuers}, {one.issuer: one for one in new.issuers})
    yield from _named("api_key", {key.id: key for key in old.api_keys}, {key.id: key for key in new.api_keys})
    for name in ("callout", "anonymous", "sessions"):
        if getattr(old, name) != getattr(new, name):
            yield name


def _named(what: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for name in {**old, **new}:
        if name not in new:
            yield f"{what} {name}, taken away"
        elif name not in old:
            yield f"{what} {name}, added"
        elif old[name] != new[name]:
            yield f"{what} {name}"

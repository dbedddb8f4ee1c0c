"""topology.toml → Topology: one file describes the fabric, every process reads it.

`parse()` is pure, `load()` reads the file. A Topology is frozen and already checked: nodes never look at raw TOML.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from zim.errors import TopologyError
from zim.topology import retention
from zim.topology.drafts import Draft, check_together
from zim.topology.endpoints import parse_link, parse_listener
from zim.topology.nodes import Comet, Job, ListenAddress, Logic, Node, Router, Topology
from zim.topology.tables import Problems, Table

_CLASSES: dict[str, type[Node]] = {"router": Router, "logic": Logic, "job": Job, "comet": Comet}  # as in the file

_BYTES = 1 << 40  # more than a machine has; a typing error, not a limit
_DAYS_S = 30 * 86_400.0

_WHY_LOCAL = {
    "http": "the HTTP API believes everybody who reaches it",
    "tcp": "the token handler believes everybody",
    "ws": "the token handler believes everybody",
    "bind": "links between nodes are not encrypted",
    "admin": "it tells everybody who reaches it how the node fares",
}

_EXAMPLES = {
    "id": "a number of your choice, such as 1",
    "http": '"127.0.0.1:7172"',
    "bind": '"tcp://127.0.0.1:7270"',
    "admin": '"127.0.0.1:7271"',
}


def load(path: Path) -> Topology:
    """Reads and checks a topology file.

    Raises:
        TopologyError: it cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise TopologyError([f"{path}: there is no such file; name one, or go to the folder that holds it"]) from None
    except IsADirectoryError:
        raise TopologyError([f"{path}: is a directory; right is the file in it"]) from None
    except UnicodeDecodeError as error:
        raise TopologyError([f"{path}: is not UTF-8 from byte {error.start} on, so it is not TOML"]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise TopologyError([f"{path}: cannot be read: {reason}"]) from None
    return parse(text, path)


def parse(text: str, path: Path) -> Topology:
    """Checks a topology's text. Pure: the path only says where `data_dir` starts, and stands in messages.

    Raises:
        TopologyError: it is not TOML (one problem, with line and column), or values are wrong (all problems found).
    """
    problems = Problems()
    whole = Table("", _read_toml(text, path), problems)
    whole.refuse_unknown(["fabric", *_CLASSES, "retention", "room_class"])
    fabric = _read_fabric(whole)
    kept = retention.read(whole)
    drafts = [draft for kind in _CLASSES for draft in _read_kind(whole, kind)]
    check_together(drafts)
    if problems.sentences:
        raise TopologyError(problems.sentences)
    nodes: dict[str, tuple[Any, ...]] = {
        kind: tuple(cls(**draft.values) for draft in drafts if draft.kind == kind) for kind, cls in _CLASSES.items()
    }
    fabric["data_dir"] = (path.parent / fabric["data_dir"]).absolute()
    return Topology(
        routers=nodes["router"],
        logics=nodes["logic"],
        jobs=nodes["job"],
        comets=nodes["comet"],
        retention=kept,
        path=path.absolute(),
        **fabric,
    )


def _read_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise TopologyError([f"{path}: is not a topology: its values are nested too deeply"]) from None
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).partition(" (at ")
        place = re.fullmatch(r"line (\d+), column (\d+)\)", where)
        spot = f", line {place[1]}, column {place[2]}" if place else ", at its end" if where else ""
        raise TopologyError([f"{path}{spot}: is not TOML: {what}"]) from None
    except ValueError:
        raise TopologyError([f"{path}: is not a topology: a number in it has thousands of digits"]) from None


def _read_fabric(whole: Table) -> dict[str, Any]:
    right = 'one table [fabric], with name = "demo" and data_dir = "var"'
    table = whole.table("fabric", right) if whole.require("fabric", right) else None
    if table is None:
        return {}
    table.refuse_unknown(["name", "data_dir", "max_body_bytes", "idempotency_s", "receipts_s"])
    values: dict[str, Any] = {}
    if table.require("name", 'a name for people, such as "demo"'):
        values["name"] = table.text("name", 'a name for people, such as "demo"')
    if table.require("data_dir", 'a folder, relative to this file, such as "var"'):
        values["data_dir"] = table.text("data_dir", 'a folder, relative to this file, such as "var"')
    if "max_body_bytes" in table.values:
        values["max_body_bytes"] = table.whole("max_body_bytes", 1, 16 << 20)
    for key in ("idempotency_s", "receipts_s"):
        if key in table.values:
            values[key] = table.seconds(key, 1, _DAYS_S)
    return values


def _read_kind(whole: Table, kind: str) -> list[Draft]:
    if not whole.require(kind, f"one or more tables [[{kind}]]; a fabric has at least one node of each kind"):
        return []
    return [_read_node(kind, table) for table in whole.tables(kind)]


def _read_node(kind: str, table: Table) -> Draft:
    draft = Draft(kind, table)
    node_fields = fields(_CLASSES[kind])
    table.refuse_unknown(f.name for f in node_fields)
    for f in node_fields:
        if f.name in table.values:
            draft.values[f.name] = _read_field(draft, f.name)
        elif _is_required(f):
            table.require(f.name, _EXAMPLES[f.name])
    if kind == "comet" and not {"tcp", "ws"} & table.values.keys():
        table.problems.add(table.key, 'has neither tcp nor ws; right is one or both, such as ws = "127.0.0.1:8090"')
    return draft


def _is_required(f: Field[Any]) -> bool:
    return f.default is MISSING and f.default_factory is MISSING


_READERS: dict[str, Callable[[Table, str], object]] = {
    "id": lambda t, k: t.whole(k, 1, (1 << 31) - 1),
    "host": lambda t, k: t.text(k, 'the name of a machine, such as "a"'),
    "advertise": lambda t, k: _read_advertise(t, k),
    "max_behind_bytes": lambda t, k: t.whole(k, 1, _BYTES),
    "keep_s": lambda t, k: t.seconds(k, 0.001, _DAYS_S),
    "keep_bytes": lambda t, k: t.whole(k, 1, _BYTES),
    "ballast_bytes": lambda t, k: t.whole(k, 0, _BYTES),
    "queue_bytes": lambda t, k: t.whole(k, 1, _BYTES),
    "http_timeout_s": lambda t, k: t.seconds(k, 0.001, _DAYS_S),
    "max_connections": lambda t, k: t.whole(k, 1, 10_000_000),
    "max_packet_bytes": lambda t, k: t.whole(k, 16, 16 << 20),  # a packet's header alone has 16
    "handshake_timeout_s": lambda t, k: t.seconds(k, 0.001, _DAYS_S),
    "heartbeat_s": lambda t, k: t.seconds(k, 0.001, _DAYS_S),
    "keepalive_s": lambda t, k: t.whole(k, 0, 32_767),  # Linux takes no more for TCP_KEEPIDLE
    "outbox_bytes": lambda t, k: t.whole(k, 1, _BYTES),
    "slow_consumer": lambda t, k: t.choice(k, ("close", "drop")),
}


def _read_field(draft: Draft, key: str) -> object:
    return _read_listener(draft, key) if key in _WHY_LOCAL else _READERS[key](draft.table, key)


def _read_listener(draft: Draft, key: str) -> ListenAddress | None:
    table, syntax = draft.table, parse_link if key == "bind" else parse_listener
    example = _EXAMPLES.get(key, '"127.0.0.1:8080"')
    address, is_insecure, address_key = table.values[key], False, key
    if isinstance(address, dict):
        inner = Table(table.path(key), address, table.problems)
        inner.refuse_unknown(["address", "insecure"])
        is_insecure = bool(inner.flag("insecure")) if "insecure" in address else False
        if not inner.require("address", example):
            return None
        address, address_key = inner.text("address", example), f"{key}.address"
    else:
        address = table.text(key, f"{example}, or {{ address = {example}, insecure = true }}")
    if address is None:
        return None
    try:
        endpoint = syntax(address)
    except ValueError as error:
        table.add(address_key, f'"{address}" {error}')
        return None
    draft.endpoints[key] = endpoint
    if not endpoint.is_local and not is_insecure:
        table.add(
            key,
            f"{address} can be reached from other machines, and {_WHY_LOCAL[key]}. Listen on 127.0.0.1, or answer for"
            f' it: {key} = {{ address = "{address}", insecure = true }}',
        )
    return ListenAddress(address, is_insecure)


def _read_advertise(table: Table, key: str) -> str | None:
    address = table.text(key, 'what other nodes connect to, such as "tcp://10.0.0.3:7270"')
    if address is None:
        return None
    try:
        endpoint = parse_link(address)
    except ValueError as error:
        table.add(key, f'"{address}" {error}')
        return None
    if endpoint.is_wildcard:
        table.add(key, f'"{address}" is every address and so none to connect to; right is the one that others reach')
    return address

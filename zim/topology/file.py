"""topology.toml → Topology: one file describes the fabric, every process reads it.

`parse()` is pure, `load()` reads the file. A Topology is frozen and already checked: nodes never look at raw TOML.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from zim.errors import TopologyError
from zim.topology import retention
from zim.topology.drafts import Draft, check_admin, check_together
from zim.topology.endpoints import Endpoint, parse_link, parse_listener
from zim.topology.nodes import MOST_S, Comet, Job, ListenAddress, Logic, Node, Router, Topology
from zim.topology.tables import Reader, Table, checked, choice, seconds, text, texts, whole

_CLASSES: dict[str, type[Node]] = {"router": Router, "logic": Logic, "job": Job, "comet": Comet}  # as in the file

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
        toml = path.read_bytes().decode()
    except FileNotFoundError:
        raise TopologyError([f"{path}: there is no such file; name one, or go to the folder that holds it"]) from None
    except IsADirectoryError:
        raise TopologyError([f"{path}: is a directory; right is the file in it"]) from None
    except UnicodeDecodeError as error:
        raise TopologyError([f"{path}: is not UTF-8 from byte {error.start} on, so it is not TOML"]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise TopologyError([f"{path}: cannot be read: {reason}"]) from None
    return parse(toml, path)


def parse(toml: str, path: Path) -> Topology:
    """Checks a topology's text. Pure: the path only says where `data_dir` starts, and stands in messages.

    Raises:
        TopologyError: it is not TOML (one problem, with line and column), or values are wrong (all problems found).
    """
    problems: list[str] = []
    file = Table("", _read_toml(toml, path), problems)
    file.refuse_unknown(["fabric", *_CLASSES, "retention", "room_class"])
    fabric = _read_fabric(file)
    kept = retention.read(file)
    drafts = [draft for kind in _CLASSES for draft in _read_kind(file, kind)]
    check_together(drafts)
    if fabric.get("admin"):
        check_admin(fabric["admin"], drafts, problems)
    if "data_dir" in fabric:
        try:
            fabric["data_dir"] = resolve_folder(fabric["data_dir"], path.parent)
        except RuntimeError:
            problems.append(f"fabric.data_dir: {fabric['data_dir']}: there is no such user")
    if problems:
        raise TopologyError(problems)
    nodes: dict[str, Any] = {
        f"{kind}s": tuple(cls(**draft.values) for draft in drafts if draft.kind == kind)
        for kind, cls in _CLASSES.items()
    }
    return Topology(**nodes, retention=kept, path=path.absolute(), **fabric)


def resolve_folder(name: str, beside: Path) -> Path:
    """A folder of the topology, absolute. `~` is the user's home.

    Raises:
        RuntimeError: of a user that does not exist.
    """
    return (beside / Path(name).expanduser()).absolute()


def _read_toml(toml: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(toml)
    except RecursionError:
        raise TopologyError([f"{path}: is not a topology: its values are nested too deeply"]) from None
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).partition(" (at ")
        place = re.fullmatch(r"line (\d+), column (\d+)\)", where)
        spot = f", line {place[1]}, column {place[2]}" if place else ", at its end" if where else ""
        raise TopologyError([f"{path}{spot}: is not TOML: {what}"]) from None
    except ValueError:
        raise TopologyError([f"{path}: is not a topology: a number in it has thousands of digits"]) from None


def _read_fabric(file: Table) -> dict[str, Any]:
    right = 'one table [fabric], with name = "demo" and data_dir = "var"'
    table = file.table("fabric", right) if file.require("fabric", right) else None
    return {} if table is None else table.read(_FABRIC, _FABRIC_REQUIRED)


def _read_kind(file: Table, kind: str) -> list[Draft]:
    if not file.require(kind, f"one or more tables [[{kind}]]; a fabric has at least one node of each kind"):
        return []
    return [_read_node(kind, table) for table in file.tables(kind)]


def _read_node(kind: str, table: Table) -> Draft:
    node_fields = fields(_CLASSES[kind])
    required = {f.name: _EXAMPLES[f.name] for f in node_fields if f.default is MISSING and f.default_factory is MISSING}
    hints = get_type_hints(_CLASSES[kind], include_extras=True)
    readers = {f.name: _READERS.get(f.name) or hints[f.name].__metadata__[0] for f in node_fields}
    draft = Draft(kind, table, table.read(readers, required))
    if kind == "comet" and not {"tcp", "ws"} & table.values.keys():
        table.add("", 'has neither tcp nor ws; right is one or both, such as ws = "127.0.0.1:8090"')
    return draft


def _read_listener(table: Table, key: str) -> ListenAddress | None:
    example, address_key = _EXAMPLES.get(key, '"127.0.0.1:8080"'), key
    if isinstance(table.values[key], dict):
        inner, address_key = Table(table.path(key), table.values[key], table.problems), f"{key}.address"
        found = inner.read({"address": text(example), "insecure": _FLAG, **_MORE.get(key, {})}, {"address": example})
    else:
        found = {"address": text(f"{example}, or {{ address = {example}, insecure = true }}")(table, key)}
    listener = ListenAddress(**{"address": "", **found})
    endpoint = _parse(table, address_key, listener.address, parse_link if key == "bind" else parse_listener)
    if endpoint is None:
        return None
    if not endpoint.is_local and not listener.insecure:
        table.add(
            key,
            f"{listener.address} can be reached from other machines, and {_WHY_LOCAL[key]}. Listen on 127.0.0.1, or"
            f' answer for it: {key} = {{ address = "{listener.address}", insecure = true }}',
        )
    return listener


def _read_advertise(table: Table, key: str) -> str | None:
    address: str = text('what other nodes connect to, such as "tcp://10.0.0.3:7270"')(table, key) or ""
    endpoint = _parse(table, key, address, parse_link)
    if endpoint is not None and endpoint.is_wildcard:
        table.add(key, f'"{address}" is every address and so none to connect to; right is the one that others reach')
    return address


def _parse(table: Table, key: str, address: str, syntax: Callable[[str], Endpoint]) -> Endpoint | None:
    """What an address means; None for one that is wrong, or none."""
    try:
        return syntax(address) if address else None
    except ValueError as error:
        table.add(key, f'"{address}" {error}')
        return None


_FLAG = checked(lambda v: isinstance(v, bool), "true or false")
_FABRIC_REQUIRED = {
    "name": 'a name for people, such as "demo"',
    "data_dir": 'a folder, relative to this file, such as "var"',
}
_FABRIC: dict[str, Reader] = {
    **{key: text(right) for key, right in _FABRIC_REQUIRED.items()},
    "max_body_bytes": whole(1, 16 << 20),
    "idempotency_s": seconds(1, MOST_S),
    "receipts_s": seconds(1, MOST_S),
    "admin": _read_listener,
}
_BROWSERS: dict[str, Reader] = {
    "origins": texts('an array of origins, such as ["https://app.example.com"], or ["*"] for any'),
    "hosts": texts('an array of names without port, such as ["push.example.com"], or ["*"] for any'),
}
# What a listener may have beside its address, by its key.
_MORE: dict[str, dict[str, Reader]] = {
    "http": _BROWSERS,
    "admin": _BROWSERS,
    "ws": {**_BROWSERS, "ws_frames": choice("array", "object")},
}
_READERS: dict[str, Reader] = {**dict.fromkeys(_WHY_LOCAL, _read_listener), "advertise": _read_advertise}

"""topology.toml → Topology: one file describes the fabric, every process reads it.

`parse()` is pure, `load()` reads the file. A Topology is frozen and already checked: nodes never look at raw TOML.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, get_type_hints

from zim.errors import TopologyError
from zim.fabric.bans import parse_network
from zim.program import zim_command
from zim.topology import browsers, ceilings, identity, links, log, reach, retention
from zim.topology.drafts import Draft, check_admin, check_together
from zim.topology.endpoints import Endpoint, parse_link, parse_listener
from zim.topology.nodes import MOST_S, CertificatePair, Comet, Job, ListenAddress, Logic, Node, Router, Topology
from zim.topology.tables import Reader, Table, checked, choice, header_name, seconds, show, text, texts, whole

_CLASSES: dict[str, type[Node]] = {"router": Router, "logic": Logic, "job": Job, "comet": Comet}  # as in the file

MAX_LIST_BYTES = 4 << 20  # of the list of link keys; a node takes less than 100

_EXAMPLES = {
    "id": "a number of your choice, such as 1",
    "http": '"127.0.0.1:7172"',
    "bind": '"tcp://127.0.0.1:7270"',
    "publish": '"tcp://127.0.0.1:7176"',
    "admin": '"127.0.0.1:7271"',
}


def load(path: Path) -> Topology:
    """Reads and checks a topology file, and the list of link keys that it names.

    Raises:
        TopologyError: one of them cannot be read, or something in it is wrong.
    """
    found = load_alone(path)
    if found.links.keys is None:
        return found
    public, problems = read_list(found.links)
    if problems:
        raise TopologyError([f"links.keys: {problem}" for problem in problems])
    return replace(found, links=replace(found.links, public=public))


def read_list(found: links.Links) -> tuple[dict[str, str], list[str]]:
    """The public keys of all nodes, from the list in the folder of link keys; and what is wrong with it."""
    file = found.list_file
    try:
        with file.open("rb") as f:
            content = f.read(MAX_LIST_BYTES + 1)
    except FileNotFoundError:
        how = f"{zim_command()} link-key make writes it, once for all machines; to the others bring it from there"
        return {}, [f"{file}: there is no such file; {how}"]
    except OSError as error:
        return {}, [f"{file}: cannot be read: {error.strerror}"]
    if len(content) > MAX_LIST_BYTES:
        return {}, [f"{file}: has more than {MAX_LIST_BYTES} bytes"]
    try:
        return links.parse_list(content.decode(), file)
    except UnicodeDecodeError as error:
        return {}, [f"{file}: is not UTF-8 from byte {error.start} on, so it is not TOML"]


def load_alone(path: Path) -> Topology:
    """Reads and checks a topology file, and nothing that it names.

    Raises:
        TopologyError: it cannot be read, or something in it is wrong.
    """
    try:
        toml = path.read_bytes().decode()
    except FileNotFoundError:
        raise TopologyError(
            [
                f"{path}: there is no such file; name one by --topology FILE or in ZIM_TOPOLOGY, go to the folder that"
                f" holds it, or let {zim_command()} init write one"
            ]
        ) from None
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
    file.refuse_unknown(["fabric", *_CLASSES, "links", "log", "retention", "room_class", *identity.KEYS, ceilings.KEY])
    fabric_table = _fabric_table(file)
    fabric = {} if fabric_table is None else fabric_table.read(_FABRIC, _FABRIC_REQUIRED)
    before = len(problems)
    who = identity.read(file, path.parent)
    is_sure = len(problems) == before  # else what is said of who is let in is not what was meant
    kept, linked = retention.read(file), links.read(file, path.parent)
    limits, place = ceilings.read(file), log.read(file, path.parent)
    drafts = [draft for kind in _CLASSES for draft in _read_kind(file, kind)]
    check_together(drafts)
    reach.check(fabric_table, fabric.get("admin"), drafts, who if is_sure else None, linked)
    logics = sum(draft.kind == "logic" for draft in drafts)
    max_body_bytes = fabric.get("max_body_bytes", Topology.max_body_bytes)
    ceilings.check_together(file, limits, who.api_keys, max_body_bytes, logics)
    if fabric_table is not None and "admin" in fabric:
        check_admin(fabric_table, fabric["admin"], drafts)
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
    digest = sha256(toml.encode()).hexdigest()
    whole: dict[str, Any] = {
        "retention": kept,
        "identity": who,
        "links": linked,
        "limits": limits,
        "log": place,
        "path": path.absolute(),
        "digest": digest,
    }
    return Topology(**nodes, **whole, **fabric)


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
        hint = "; text stands in quotes" if "after a statement" in what or what == "Invalid value" else ""
        raise TopologyError([f"{path}{spot}: is not TOML: {what}{hint}"]) from None
    except ValueError:
        raise TopologyError([f"{path}: is not a topology: a number in it has thousands of digits"]) from None


def _fabric_table(file: Table) -> Table | None:
    right = 'one table [fabric], with name = "demo" and data_dir = "var"'
    return file.table("fabric", right) if file.require("fabric", right) else None


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


def _read_listeners(table: Table, key: str) -> tuple[ListenAddress, ...] | None:
    """One listener, or an array of them; None if one of them is wrong."""
    value = table.values[key]
    if not isinstance(value, list):
        one = _read_listener(table, key, key, _a_listener(key) + ", or an array of these")
        return None if one is None else (one,)
    if not value:
        table.add(key, f"is an empty array; right is at least one address in it, or none and no {key}")
    # Each stands in a table as if `ws[1]` was its key: so every problem names it.
    items = {f"{key}[{i}]": item for i, item in enumerate(value)}
    inner = Table(table.key, items, table.problems)
    found = [_read_listener(inner, item_key, key, _a_listener(key)) for item_key in items]
    right = [one for one in found if one is not None]
    return tuple(right) if right and len(right) == len(found) else None


def _read_bind(table: Table, key: str) -> ListenAddress | None:
    return _read_listener(table, key, key, _a_listener(key))  # one, for others have one address to connect to


def _a_listener(kind: str) -> str:
    return f"{_example(kind)}, or {{ address = {_example(kind)}, insecure = true }}"


def _example(kind: str) -> str:
    return _EXAMPLES.get(kind, '"127.0.0.1:8080"')


def _read_listener(table: Table, key: str, kind: str, right: str) -> ListenAddress | None:
    """One listener.

    Args:
        key: where it is in the table, such as `ws[1]`.
        kind: what it is for, such as `ws`.
        right: what would be, for the sentence about a value of another type.
    """
    address_key = key
    if isinstance(table.values[key], dict):
        inner, address_key = Table(table.path(key), table.values[key], table.problems), f"{key}.address"
        readers = {"address": text(_example(kind)), "insecure": _FLAG, **_MORE.get(kind, {})}
        found = inner.read(readers, {"address": _example(kind)})
    else:
        found = {"address": text(right)(table, key)}
    listener = ListenAddress(**{"address": "", **found})
    syntax = parse_link if kind in ("bind", "publish") else parse_listener
    return None if _parse(table, address_key, listener.address, syntax) is None else listener


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


def _read_tls(table: Table, key: str) -> tuple[CertificatePair, ...] | None:
    """One certificate, or an array of them; None if one of them is wrong."""
    value = table.values[key]
    tables = [Table(table.path(key), value, table.problems)] if isinstance(value, dict) else []
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        tables = [Table(f"{table.path(key)}[{i}]", one, table.problems) for i, one in enumerate(value)]
    if not tables:
        table.add(key, f"is {show(value)}; right is {_A_PAIR}, or an array of these, one for each name")
        return None
    found = [one.read(_PAIR, _PAIR_REQUIRED) for one in tables]
    return tuple(CertificatePair(**one) for one in found) if all(len(one) == len(_PAIR) for one in found) else None


def _read_proxies(table: Table, key: str) -> tuple[str, ...] | None:
    """Networks, in the form in which they are looked for."""
    found: list[str] = []
    for i, text_ in enumerate(texts('an array of networks, such as ["10.0.0.0/8"]')(table, key) or ()):
        try:
            found.append(parse_network(text_))
        except ValueError as error:
            table.add(f"{key}[{i}]", str(error))
            return None
    return tuple(found) or None


_FLAG = checked(lambda v: isinstance(v, bool), "true or false")
_FABRIC_REQUIRED = {
    "name": 'a name for people, such as "demo"',
    "data_dir": 'a folder, relative to this file, such as "var"',
}
_FABRIC: dict[str, Reader] = {
    **{key: text(right) for key, right in _FABRIC_REQUIRED.items()},
    "max_body_bytes": whole(1, 16 << 20),
    "idempotency_s": seconds(10, MOST_S),
    "receipts_s": seconds(1, MOST_S),
    "admin": _read_listeners,
    "log_level": choice("debug", "info", "warning"),
}
_PAIR_REQUIRED = {"certificate": 'a file, such as "certificate.pem"', "key": 'a file, such as "key.pem"'}
_PAIR: dict[str, Reader] = {key: text(right) for key, right in _PAIR_REQUIRED.items()}
_A_PAIR = '{ certificate = "certificate.pem", key = "key.pem" }'
_STRANGERS: dict[str, Reader] = {"tls": _read_tls, "proxies": _read_proxies, "proxy_protocol": _FLAG}
_BROWSERS: dict[str, Reader] = {
    **_STRANGERS,
    "client_header": header_name(),
    "origins": browsers.read_origins,
    "hosts": browsers.read_hosts,
}
_PEOPLE: dict[str, Reader] = {**_STRANGERS, "anonymous": _FLAG}
_PUBLIC_TCP = checked(
    lambda v: isinstance(v, str) and re.fullmatch(r"(tls://)?[^\s/@]+:[0-9]{1,5}", v) is not None,
    'what clients connect to, such as "push-1.example.com:8080", or "tls://push-1.example.com:8443"',
)
_PUBLIC_WS = checked(
    lambda v: isinstance(v, str) and re.fullmatch(r"(wss://[!-~]+|ws://[^\s/@]+:[0-9]{1,5}(/[!-~]*)?)", v) is not None,
    'what clients connect to, such as "wss://push-1.example.com/sub"',
)
_COOKIE = checked(
    lambda v: isinstance(v, str) and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", v) is not None,
    'the name of a cookie, such as "session"',  # RFC 6265 4.1.1
)
# What a listener may have beside its address, by its key.
_MORE: dict[str, dict[str, Reader]] = {
    "http": _BROWSERS,
    "admin": _BROWSERS,
    "tcp": {**_PEOPLE, "public": _PUBLIC_TCP},
    "ws": {**_BROWSERS, **_PEOPLE, "ws_frames": choice("array", "object"), "cookie": _COOKIE, "public": _PUBLIC_WS},
}
_READERS: dict[str, Reader] = {
    **dict.fromkeys(("http", "tcp", "ws", "admin"), _read_listeners),
    "bind": _read_bind,
    "publish": _read_bind,
    "advertise": _read_advertise,
}

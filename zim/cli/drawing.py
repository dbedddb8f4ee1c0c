"""A topology as a picture: who connects to whom, and where. Pure."""

from __future__ import annotations

from itertools import zip_longest
from textwrap import wrap

from zim.topology import ListenAddress, Node, Topology
from zim.topology.drafts import CONNECTS_TO
from zim.topology.endpoints import parse_link

MAX_CHARS = 80  # of a line
MAX_ADDRESS_CHARS = 21  # holds 192.168.100.100:65535; two boxes of such addresses, below names, then fit into a line
MAX_HOST_CHARS = 8
GAP = 10  # between the boxes; holds an arrow with its word
MIN_WIDTH = 33  # of a box; the words of two arrows fit below it
LISTENERS = {"tcp": "tcp", "ws": "ws", "http": "http", "link": "bind", "admin": "admin"}  # in this order; their fields


def draw(topology: Topology) -> str:
    """The fabric as text: four boxes, one for each kind of node, and the arrows of the links between them.

    An arrow starts at who connects. At most 80 columns wide, whatever the addresses are: names stand beside the
    addresses, or above them where that is too wide.
    """
    kinds = (topology.logics, topology.comets, topology.routers, topology.jobs)
    logic, comet, router, job = map(_rows, kinds)
    if _width(logic, router) + GAP + _width(comet, job) > MAX_CHARS:
        logic, comet, router, job = map(_high_rows, kinds)
    left, right = _width(logic, router), _width(comet, job)
    upper, lower = max(len(logic), len(comet)), max(len(router), len(job))
    column = left + GAP
    floor = 5 + upper  # the first line below the upper boxes
    elbow, up = left - 4, column + right - 12
    picture = _overlay(
        (1, 0, "backend\n  │ HTTP\n  ▼"),
        (column + 1, 0, "client\n  │ TCP, WebSocket\n  ▼"),
        (0, 3, _box("logic", logic, left, upper)),
        (column, 3, _box("comet", comet, right, upper)),
        (left, 4, "◄─ Auth ──┤"),
        (3, floor - 1, "┬\n│\n│ Publish, Ask\n▼"),
        (column + 3, floor - 1, "┬\n│ changes, Renew"),
        (elbow, floor + 1, "┌" + "─" * (column + 2 - elbow) + "┘\n▼"),
        (0, floor + 3, _box("router", router, left, lower)),
        (column, floor + 3, _box("job", job, right, lower)),
        (up, floor, "▲\n│ Deliver\n│\n┴"),
        (left - 1, floor + 4, "├── Push ─►"),
    )
    remarks = [line for remark in _remarks(topology) for line in wrap(remark, MAX_CHARS, subsequent_indent="  ")]
    return "\n".join([*wrap(_title(topology), MAX_CHARS), "", picture, "", *remarks]).rstrip() + "\n"


def _overlay(*pieces: tuple[int, int, str]) -> str:
    """Pieces of text, each from a column and a line on; what comes later covers what was there."""
    lines: list[str] = []
    for x, y, text in pieces:
        for at, part in enumerate(text.split("\n"), y):
            lines.extend([""] * (at + 1 - len(lines)))
            lines[at] = lines[at][:x].ljust(x) + part + lines[at][x + len(part) :]
    return "\n".join(line.rstrip() for line in lines)


def _box(title: str, rows: list[str], width: int, n_rows: int) -> str:
    top = f"┌─ {title} ".ljust(width - 1, "─") + "┐"
    inner = [f"│ {row.ljust(width - 4)} │" for row in rows + [""] * (n_rows - len(rows))]
    return "\n".join([top, *inner, "└" + "─" * (width - 2) + "┘"])


def _width(*boxes: list[str]) -> int:
    return max(MIN_WIDTH, *(len(row) + 4 for rows in boxes for row in rows))


def _rows(nodes: tuple[Node, ...]) -> list[str]:
    """Names, and beside them what listens where."""
    cells: list[tuple[str, str, str]] = []
    for node in nodes:
        labels = [node.name, *([f"@{_cut(node.host, MAX_HOST_CHARS)}"] if node.host else [])]
        for label, address in zip_longest(labels, _addresses(node)):
            cells.append((label or "", *(address or ("", ""))))
    width = max(len(label) for label, _, _ in cells)
    wide = max(4, *(len(what) for _, what, _ in cells))
    return [f"{label:<{width}}  {what:<{wide}} {where}" for label, what, where in cells]


def _high_rows(nodes: tuple[Node, ...]) -> list[str]:
    """Names, and below them what listens where: narrower, and higher."""
    rows: list[str] = []
    for node in nodes:
        rows.append(node.name + (f" @{_cut(node.host, MAX_HOST_CHARS)}" if node.host else ""))
        rows += [f"  {what:<5} {where}" for what, where in _addresses(node)]
    return rows


def _addresses(node: Node) -> list[tuple[str, str]]:
    found = [(what, _short(one.address) + (" !" if _is_open(one) else "")) for what, one in _listeners(node)]
    return found + ([("as", _short(node.advertise))] if node.advertise else [])


def _is_open(listener: ListenAddress) -> bool:
    """Others reach it, and the file takes the responsibility. Without that it has somebody who asks who they are."""
    return listener.insecure and listener.is_reachable


def _listeners(node: Node) -> list[tuple[str, ListenAddress]]:
    found = {what: getattr(node, key, ()) for what, key in LISTENERS.items()}
    return [(what, one) for what, at in found.items() for one in ((at,) if isinstance(at, ListenAddress) else at)]


def _short(address: str) -> str:
    """An address without what can be spared: most links are TCP."""
    return _cut(address.removeprefix("tcp://"), MAX_ADDRESS_CHARS)


def _cut(text: str, most: int) -> str:
    """The text, without its middle if it is too long: the start, and the port or file name, say most."""
    tail = most * 2 // 3
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"


def _title(topology: Topology) -> str:
    kinds = (topology.routers, topology.logics, topology.jobs, topology.comets)
    return f"{topology.name}: " + ", ".join(f"{len(n)} {n[0].kind}{'s' * (len(n) > 1)}" for n in kinds)


def _remarks(topology: Topology) -> list[str]:
    remarks = []
    if len(topology.nodes) > len(CONNECTS_TO):
        remarks.append("Each arrow joins every node at its one end with every node at the other.")
    if len(topology.routers) > 1:
        remarks.append("Every user, and every room, has one router; each keeps its share of them.")
    if any(_is_open(listener) for node in topology.nodes for _, listener in _listeners(node)):
        remarks.append("! can be reached from other machines, unprotected: the file says insecure = true.")
    for node in topology.nodes:
        elsewhere = {n.host for n in topology.nodes if node.kind in CONNECTS_TO[n.kind] and n.host != node.host}
        if elsewhere and parse_link(node.endpoint).is_local:
            remarks.append(
                f"Note: {node.name} is at {node.endpoint}, out of reach from {', '.join(sorted(elsewhere))}."
            )
    return remarks

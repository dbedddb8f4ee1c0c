"""A topology as a picture: who connects to whom, and where. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from zim.topology import Comet, ListenAddress, Logic, Node, Topology
from zim.topology.drafts import CONNECTS_TO
from zim.topology.endpoints import parse_link, parse_listener

MAX_ADDRESS_CHARS = 27  # holds tcp://192.168.100.100:65535; two boxes then fit into some 100 columns
MAX_HOST_CHARS = 8
GAP = 10  # between the boxes; holds an arrow with its word
MIN_WIDTH = 36  # of a box; the words of two arrows fit below it


def draw(topology: Topology) -> str:
    """The fabric as text: four boxes, one for each kind of node, and the arrows of the links between them.

    An arrow starts at who connects. At most about 100 columns wide, whatever the addresses are.
    """
    logic, comet = _Box("logic", _rows(topology.logics)), _Box("comet", _rows(topology.comets))
    router, job = _Box("router", _rows(topology.routers)), _Box("job", _rows(topology.jobs))
    left, right = max(logic.width, router.width), max(comet.width, job.width)
    upper, lower = max(logic.height, comet.height), max(router.height, job.height)

    canvas = _Canvas()
    column = left + GAP
    canvas.write(1, 0, "backend")
    canvas.write(column + 1, 0, "client")
    canvas.write(3, 1, "│ HTTP")
    canvas.write(column + 3, 1, "│ TCP, WebSocket")
    canvas.write(3, 2, "▼")
    canvas.write(column + 3, 2, "▼")
    canvas.box(0, 3, logic, left, upper)
    canvas.box(column, 3, comet, right, upper)
    canvas.write(left, 4, "◄─ Auth ──┤")

    floor = 3 + upper  # the first line below the upper boxes
    canvas.write(3, floor - 1, "┬")
    canvas.write(3, floor, "│")
    canvas.write(3, floor + 1, "│ Publish, Ask")
    canvas.write(3, floor + 2, "▼")
    elbow, up = left - 4, column + right - 12
    canvas.write(column + 3, floor - 1, "┬")
    canvas.write(column + 3, floor, "│ changes, Renew")
    canvas.write(elbow, floor + 1, "┌" + "─" * (column + 2 - elbow) + "┘")
    canvas.write(elbow, floor + 2, "▼")
    canvas.write(up, floor, "▲")
    canvas.write(up, floor + 1, "│ Deliver")
    canvas.write(up, floor + 2, "│")
    canvas.box(0, floor + 3, router, left, lower)
    canvas.box(column, floor + 3, job, right, lower)
    canvas.write(up, floor + 3, "┴")
    canvas.write(left - 1, floor + 4, "├── Push ─►")
    return "\n".join([_title(topology), "", canvas.text(), "", *_remarks(topology)]).rstrip() + "\n"


@dataclass(frozen=True)
class _Box:
    title: str
    rows: list[str]

    @property
    def width(self) -> int:
        return max(MIN_WIDTH, *(len(row) + 4 for row in self.rows))

    @property
    def height(self) -> int:
        return len(self.rows) + 2


class _Canvas:
    """Characters by line and column; what is written later covers what was there."""

    def __init__(self) -> None:
        self._lines: list[list[str]] = []

    def write(self, x: int, y: int, text: str) -> None:
        while len(self._lines) <= y:
            self._lines.append([])
        line = self._lines[y]
        line.extend(" " * (x + len(text) - len(line)))
        line[x : x + len(text)] = text

    def box(self, x: int, y: int, box: _Box, width: int, height: int) -> None:
        title = f"┌─ {box.title} "
        self.write(x, y, title + "─" * (width - len(title) - 1) + "┐")
        rows = box.rows + [""] * (height - 2 - len(box.rows))
        for i, row in enumerate(rows, 1):
            self.write(x, y + i, f"│ {row.ljust(width - 4)} │")
        self.write(x, y + height - 1, "└" + "─" * (width - 2) + "┘")

    def text(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self._lines)


def _rows(nodes: tuple[Node, ...]) -> list[str]:
    cells: list[tuple[str, str, str]] = []
    for node in nodes:
        labels = [node.name, f"@{_cut(node.host, MAX_HOST_CHARS)}" if node.host else ""]
        addresses = _addresses(node)
        for i in range(max(len(addresses), 2 if node.host else 1)):
            label = labels[i] if i < len(labels) else ""
            cells.append((label, *(addresses[i] if i < len(addresses) else ("", ""))))
    width = max(len(label) for label, _, _ in cells)
    wide = max(4, *(len(what) for _, what, _ in cells))
    return [f"{label:<{width}}  {what:<{wide}} {where}" for label, what, where in cells]


def _addresses(node: Node) -> list[tuple[str, str]]:
    found = []
    for what, listener in _listeners(node):
        mark = "" if _is_local(listener) else " !"
        found.append((what, _cut(listener.address) + mark))
    if node.advertise:
        found.append(("as", _cut(node.advertise)))
    return found


def _listeners(node: Node) -> list[tuple[str, ListenAddress]]:
    found = [("link", node.bind)]
    if isinstance(node, Logic):
        found.insert(0, ("http", node.http))
    if isinstance(node, Comet):
        found[:0] = [(what, one) for what, one in (("tcp", node.tcp), ("ws", node.ws)) if one is not None]
    if node.admin is not None:
        found.append(("admin", node.admin))
    return found


def _is_local(listener: ListenAddress) -> bool:
    parse = parse_link if "://" in listener.address else parse_listener
    return parse(listener.address).is_local


def _cut(text: str, most: int = MAX_ADDRESS_CHARS) -> str:
    """The text, without its middle if it is too long: the scheme and the port or file name say most."""
    tail = most * 2 // 3
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"


def _title(topology: Topology) -> str:
    counts = (
        ("router", topology.routers),
        ("logic", topology.logics),
        ("job", topology.jobs),
        ("comet", topology.comets),
    )
    return f"{topology.name}: " + ", ".join(f"{len(nodes)} {kind}{'s' * (len(nodes) > 1)}" for kind, nodes in counts)


def _remarks(topology: Topology) -> list[str]:
    remarks = []
    if len(topology.nodes) > len(CONNECTS_TO):
        remarks.append("Each arrow joins every node at its one end with every node at the other.")
    if len(topology.routers) > 1:
        remarks.append("Every user, and every room, has one router; each keeps its share of them.")
    if any(not _is_local(listener) for node in topology.nodes for _, listener in _listeners(node)):
        remarks.append("! can be reached from other machines, unprotected: the file says insecure = true.")
    for node in topology.nodes:
        elsewhere = {n.host for n in topology.nodes if node.kind in CONNECTS_TO[n.kind] and n.host != node.host}
        if elsewhere and parse_link(node.endpoint).is_local:
            remarks.append(
                f"Note: {node.name} is at {node.endpoint}, out of reach from {', '.join(sorted(elsewhere))}."
            )
    return remarks

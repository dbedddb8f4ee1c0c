"""The layout of the house: the map in docs/architecture.md is true, what is called pure is, and modules stay small."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "zim").rglob("*.py"))
MAX_LINES = 400

# What decides, and what it decides with. The simulator runs it as it ships.
PURE = (
    "zim.errors",
    "zim.fabric",
    "zim.identity.explaining",
    "zim.identity.goim",
    "zim.identity.keys",
    "zim.identity.tokens",
    "zim.json_text",
    "zim.protocol",
    "zim.net.batches",
    "zim.net.link_keys",
    "zim.nodes.calls",
    "zim.nodes.effects",
    "zim.nodes.performer",
    "zim.nodes.placement",
    "zim.nodes.remote_clock",
    "zim.nodes.seldom",
    "zim.nodes.comet.cursors",
    "zim.nodes.comet.deferred",
    "zim.nodes.comet.doorkeeper",
    "zim.nodes.comet.draining",
    "zim.nodes.comet.effects",
    "zim.nodes.comet.feed",
    "zim.nodes.comet.feeds",
    "zim.nodes.comet.hearing",
    "zim.nodes.comet.hub",
    "zim.nodes.comet.history",
    "zim.nodes.comet.inflow",
    "zim.nodes.comet.joining",
    "zim.nodes.comet.obeying",
    "zim.nodes.comet.outbox",
    "zim.nodes.comet.passes",
    "zim.nodes.comet.phases",
    "zim.nodes.comet.results",
    "zim.nodes.comet.runner",
    "zim.nodes.comet.views",
    "zim.nodes.job.runner",
    "zim.nodes.logic.callouts",
    "zim.nodes.logic.clocks",
    "zim.nodes.logic.desk",
    "zim.nodes.logic.keysets",
    "zim.nodes.logic.lanes",
    "zim.nodes.logic.logging_in",
    "zim.nodes.logic.quotas",
    "zim.nodes.logic.runner",
    "zim.nodes.logic.shares",
    "zim.nodes.logic.submitting",
    "zim.nodes.logic.trains",
    "zim.nodes.router.admission",
    "zim.nodes.router.answering",
    "zim.nodes.router.control",
    "zim.nodes.router.counting",
    "zim.nodes.router.directory",
    "zim.nodes.router.effects",
    "zim.nodes.router.feed",
    "zim.nodes.router.intake",
    "zim.nodes.router.log.clock",
    "zim.nodes.router.log.keys",
    "zim.nodes.router.log.memory",
    "zim.nodes.router.log.memory_receipts",
    "zim.nodes.router.log.memory_store",
    "zim.nodes.router.log.window",
    "zim.nodes.router.owning",
    "zim.nodes.router.questions",
    "zim.nodes.router.receipts",
    "zim.nodes.router.runner",
    "zim.nodes.router.shard",
    "zim.nodes.router.shard_counts",
    "zim.nodes.router.shard_runner",
    "zim.nodes.router.stream_limit",
    "zim.nodes.router.streams",
    "zim.nodes.router.upkeep",
    "zim.supervisor.drains",
    "zim.supervisor.restarts",
    "zim.supervisor.rolling",
    "zim.supervisor.standing",
    "zim.topology.browsers",
    "zim.topology.api_keys",
    "zim.topology.ceilings",
    "zim.topology.drafts",
    "zim.topology.endpoints",
    "zim.topology.identity",
    "zim.topology.links",
    "zim.topology.log",
    "zim.topology.nodes",
    "zim.topology.reach",
    "zim.topology.retention",
    "zim.topology.review",
    "zim.topology.tables",
)
INTERFACES = ("zim.nodes.router.log", "zim.nodes.router.log.receipts", "zim.nodes.router.log.shared")
IMPURE = ("gevent", "socket", "time", "random", "secrets", "threading", "subprocess", "os", "zmq", "sqlite3")

# Libraries that have one place each.
PLACES = {
    "zmq": ("zim.net.transport", "zim.net.zap", "zim.client.zeromq"),
    "msgpack": ("zim.protocol.codec",),
    "sqlite3": ("zim.nodes.router.log.sqlite",),
    "psycopg": ("zim.nodes.router.log.postgresql",),
    "zim.nodes.router.log.postgresql": ("zim.nodes.router.log",),
    "zim.nodes.router.log.sqlite": ("zim.nodes.router.log",),  # an engine: nobody above the log knows which it is
    "prometheus_client": ("zim.metrics",),
    "flask": ("zim.web",),
    "jwt": ("zim.identity.keys",),
    "cryptography": ("zim.identity.keys", "zim.identity.link_keys", "zim.net.certificates", "zim.cli.certified"),
    "urllib3": ("zim.asking",),
    "werkzeug": ("zim.web",),
    "geventwebsocket": ("zim.nodes.comet.websocket",),
    "gevent.monkey": ("zim.__main__", "zim.logs"),  # it patches; that one wants what was there before
}

# Names that two classes may have: each belongs to the client, or to the document of the HTTP API, and users know it.
SHARED = {"Accepted", "Message", "Push"}


def name_of(path: Path) -> str:
    """The module's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path, *, when_run: bool = False) -> frozenset[str]:
    """All modules that a file imports, wherever in it. when_run: without those for the type checker alone."""
    skipped: set[ast.AST] = set()
    if when_run:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped |= {inner for statement in node.body for inner in ast.walk(statement)}
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def is_in(module: str, *packages: str) -> bool:
    """Whether it is one of these, or inside one."""
    return any(module == p or module.startswith(p + ".") for p in packages)


# ---------------------------------------------------------------- the map


def dotted(cell: str) -> list[str]:
    """The modules that a cell of the map names."""
    found = re.findall(r"`([^`]+)`", cell)
    return [name.removesuffix(".py").replace("/", ".") for name in found]


@cache
def the_map() -> dict[str, tuple[list[str], list[str]]]:
    """By folder or module: what it may import, and what it knows nothing of."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("| `zim/")]
    return {dotted(first)[0]: (dotted(may), dotted(knows_not)) for first, _, may, knows_not in rows}


def room_of(module: str) -> str:
    """The narrowest row of the map that a module is in."""
    rooms = [room for room in the_map() if is_in(module, room)]
    return max(rooms, key=len, default="")


def test_the_map_names_every_folder() -> None:
    folders = {name_of(path.parent / "__init__.py") for path in MODULES} - {"zim"}
    top = {folder for folder in folders if folder.count(".") == 1}
    assert top <= the_map().keys()
    for room in the_map():
        assert (ROOT / room.replace(".", "/")).is_dir() or (ROOT / f"{room.replace('.', '/')}.py").is_file(), room


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p) != "zim"], ids=name_of)
def test_imports_are_those_of_the_map(path: Path) -> None:
    module = name_of(path)
    room = room_of(module)
    assert room, f"{module} is in no row of the map in docs/architecture.md"
    may, knows_not = the_map()[room]
    for other in imports(path):
        if is_in(other, "zim") and other not in ("zim", "zim.__version__") and room_of(other):
            there = room_of(other)
            assert is_in(there, room, *may), f"{module} imports {other}, which is not in the map"
        hidden = [name for name in knows_not if is_in(other, name)]
        assert not hidden, f"{module} imports {other}, of which it should know nothing"


def test_no_arrow_of_the_map_goes_up_or_in_a_circle() -> None:
    done: set[str] = set()
    left = {room: {m for m in may if not is_in(room, m)} for room, (may, _) in the_map().items()}
    while left:
        free = [room for room, may in left.items() if may <= done]
        assert free, f"a circle among {', '.join(left)}"
        done |= set(free)
        left = {room: may for room, may in left.items() if room not in free}


def test_no_module_is_in_a_circle_of_imports() -> None:
    names = {name_of(path): path for path in MODULES}
    # `from package import module` is an arrow to the module, not to what its package's __init__ offers.
    arrows = {
        name: {m for m in imports(path, when_run=True) if m in names and not is_in(name, m)}
        for name, path in names.items()
    }

    def reached(start: str) -> Iterator[str]:
        seen, todo = set[str](), [start]
        while todo:
            for other in arrows[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
                yield other

    assert [name for name in names if name in set(reached(name))] == []


# ---------------------------------------------------------------- what is pure


@pytest.mark.parametrize("path", [p for p in MODULES if is_in(name_of(p), *PURE)], ids=name_of)
def test_what_is_pure_imports_nothing_that_is_not(path: Path) -> None:
    found = imports(path, when_run=True)
    assert not any(is_in(m, *IMPURE) for m in found)
    modules = {name_of(p) for p in MODULES}
    for other in (m for m in found if m in modules and m not in ("zim", "zim.nodes", "zim.net", "zim.identity")):
        is_interface = other in INTERFACES
        assert is_in(other, *PURE) or is_interface, f"{name_of(path)} imports {other}"


def test_the_simulator_runs_what_is_pure() -> None:
    """It has nodes of its own only in as far as sockets, disks and clocks are simulated."""
    files = [ROOT / "tests" / "simulation" / name for name in ("nodes.py", "router.py")]
    found = {module for file in files for module in imports(file)}
    for kind in ("comet", "job", "logic", "router"):
        assert f"zim.nodes.{kind}.runner" in found
    assert all(len(file.read_text().splitlines()) <= 170 for file in files)


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_library_has_its_one_place(path: Path) -> None:
    module, found = name_of(path), imports(path)
    for library, places in PLACES.items():
        assert not any(is_in(m, library) for m in found) or is_in(module, *places), f"{module} imports {library}"


SQL = re.compile(r"\b(SELECT .+ FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE)\b", re.DOTALL)


@pytest.mark.parametrize("path", [p for p in MODULES if not is_in(name_of(p), "zim.nodes.router.log")], ids=name_of)
def test_sql_is_in_the_log_alone(path: Path) -> None:
    texts = [n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    assert not any(SQL.search(text) for text in texts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_pipe_knows_the_inside_of_gevents_sockets(path: Path) -> None:
    inside = {"_sock", "_read_event", "_write_event"}
    used = {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
    assert name_of(path) == "zim.net.pipe" or not used & inside


def test_one_way_to_yield() -> None:
    for path in MODULES:
        assert "gevent.sleep(0)" not in path.read_text() or name_of(path) == "zim.net.fairness", path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, set[str]] = {}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, set()).add(name_of(path))
    shared = {name: at for name, at in places.items() if len(at) > 1 and name not in SHARED}
    assert not shared

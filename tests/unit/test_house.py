"""The layout of the house: who may import what, and how large a module may get."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "zim").rglob("*.py"))
MAX_LINES = 400

# A module may import from its own floor and from those below it.
FLOORS = [
    ("zim.__main__",),
    ("zim.cli",),
    ("zim.supervisor", "zim.nodes"),
    ("zim.topology",),
    ("zim.web", "zim.net", "zim.client"),
    ("zim.protocol",),
    ("zim.fabric",),
    ("zim.metrics", "zim.logs"),
    ("zim.errors",),
    ("zim",),
]


def name_of(path: Path) -> str:
    """The module's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(module: str, *packages: str) -> bool:
    """Whether it is one of these, or inside one."""
    return any(module == p or module.startswith(p + ".") for p in packages)


def floor(module: str) -> int:
    """The number of its floor, 0 on top."""
    return next(i for i, packages in enumerate(FLOORS) if is_in(module, *packages))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    module, found = name_of(path), imports(path)
    for other in (m for m in found if is_in(m, "zim")):
        assert floor(other) >= floor(module), f"{module} imports {other}, which is above it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_library_has_its_one_place(path: Path) -> None:
    module, found = name_of(path), imports(path)
    libraries = ("zmq", "msgpack", "gevent", "flask", "prometheus_client")
    uses = {library: any(is_in(m, library) for m in found) for library in libraries}
    assert not uses["zmq"] or module in ("zim.net.transport", "zim.client.zeromq")
    assert not uses["msgpack"] or module == "zim.protocol.codec"
    assert not uses["flask"] or is_in(module, "zim.web")
    assert not uses["prometheus_client"] or module == "zim.metrics"
    if not is_in(module, "zim.nodes.router.log"):
        assert not any(is_in(m, "sqlite3", "zim.nodes.router.log.sqlite") for m in found)
    if is_in(module, "zim.protocol"):
        assert not any(is_in(m, "gevent", "socket", "logging", "time", "threading") for m in found)
    if is_in(module, "zim.client"):
        assert not any(is_in(m, "gevent", "zim.nodes", "zim.net.transport") for m in found)
    if is_in(module, "zim.web"):
        assert not any(is_in(m, "zim.nodes") for m in found)
    if any(is_in(m, "gevent.monkey") for m in found):
        assert module == "zim.__main__"


@pytest.mark.parametrize(
    "module",
    [
        "router.runner",
        "router.shard",
        "router.intake",
        "router.questions",
        "router.upkeep",
        "router.receipts",
        "router.streams",
        "router.log.memory",
        "router.log.memory_receipts",
        "router.directory",
        "router.feed",
        "comet.hub",
        "comet.views",
        "comet.passes",
        "comet.feed",
        "comet.outbox",
        "comet.phases",
    ],
)
def test_what_decides_touches_no_socket_and_no_clock(module: str) -> None:
    path = ROOT / "zim" / "nodes" / (module.replace(".", "/") + ".py")
    assert not any(is_in(m, "gevent", "socket", "time", "random", "zim.net.transport") for m in imports(path))


@pytest.mark.parametrize("path", [path for path in MODULES if is_in(name_of(path), "zim.fabric")], ids=name_of)
def test_the_domain_is_pure_and_knows_nobody(path: Path) -> None:
    found = imports(path)
    assert not any(is_in(m, "gevent", "socket", "time", "random", "logging", "threading") for m in found)
    assert all(is_in(m, "zim.fabric", "zim.errors") for m in found if is_in(m, "zim"))


DOCUMENTED = {"Accepted", "Message", "Push"}  # names that the client, or the document of the HTTP API, has given away


def test_classes_of_the_domain_of_http_and_of_the_router_share_no_name() -> None:
    places: dict[str, set[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, set()).add(name_of(path))
    here = ("zim.fabric", "zim.web", "zim.nodes.router")
    shared = {name for name, at in places.items() if len(at) > 1 and any(is_in(m, *here) for m in at)}
    assert shared <= DOCUMENTED, {name: places[name] for name in shared}


@pytest.mark.parametrize("kind", ["comet", "job", "logic", "router"])
def test_kinds_of_nodes_do_not_import_each_other(kind: str) -> None:
    others = [f"zim.nodes.{k}" for k in ("comet", "job", "logic", "router") if k != kind]
    for path in (ROOT / "zim" / "nodes" / kind).rglob("*.py"):
        assert not any(is_in(m, *others) for m in imports(path)), path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES

"""Which fabric a command is about: an address, a topology file, or goim's ports.

The file is that of --topology, else of the environment variable ZIM_TOPOLOGY, else ./topology.toml. Some commands take
it as their one argument, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from zim.cli.mistakes import FilePath
from zim.errors import TopologyError
from zim.topology import ListenAddress, Node, Topology, load
from zim.topology.endpoints import parse_link

_F = TypeVar("_F", bound=Callable[..., Any])

ENVIRONMENT = "ZIM_TOPOLOGY"
DEFAULT_FILE = Path("topology.toml")
DEFAULT_HTTP = "127.0.0.1:7172"
DEFAULT_TCP = "127.0.0.1:8080"
DEFAULT_WS = "127.0.0.1:8090"


_EVERY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # address, and the one of them that is here
_FILE = FilePath(path_type=Path)

topology_argument = click.argument("file", metavar="[TOPOLOGY]", type=_FILE, required=False)


def topology_option(what: str = "The fabric's file.") -> Callable[[_F], _F]:
    """The option --topology. what: what is taken from the file, for --help."""
    text = f"{what} By default ${ENVIRONMENT}, or ./{DEFAULT_FILE}."
    return click.option("--topology", metavar="FILE", type=_FILE, help=text)


def topology_file(topology: Path | None, file: Path | None = None) -> Path:
    """The topology file of a command that needs one. It may not be there.

    Args:
        topology: of --topology.
        file: of the argument, where the command has one.

    Raises:
        click.UsageError: both are given.
        TopologyError: the environment names a file that is not there.
    """
    if topology and file:
        raise click.UsageError(f"the topology is named twice, {file} and --topology {topology}; give it once")
    return topology or file or _of_environment() or DEFAULT_FILE


def _of_environment() -> Path | None:
    named = os.environ.get(ENVIRONMENT)
    if named and not Path(named).exists():
        raise TopologyError([f"{named}: there is no such file, and {ENVIRONMENT} names it"])
    return Path(named) if named else None


def http_address(http: str | None, topology: Path | None) -> str:
    """Where to push: `http`, or the first logic node of the topology.

    Raises:
        TopologyError: the file cannot be used.
    """
    if http:
        return http
    found = _topology(topology)
    if found is None:
        return DEFAULT_HTTP
    first = found.logics[0]
    return reachable(first.http[0], found.path.parent, tls="https", anywhere=_machine(first, found))


def comet_addresses(is_ws: bool, addresses: Sequence[str], topology: Path | None) -> list[str]:
    """Where to listen: `addresses`, or all comets of the topology that have such a listener.

    Raises:
        TopologyError: the file cannot be used, or no comet of it has one.
    """
    found = None if addresses else _topology(topology)
    if not addresses and found is None:
        addresses = [DEFAULT_WS if is_ws else DEFAULT_TCP]
    elif found is not None:
        listeners = [(comet, one) for comet in found.comets for one in (comet.ws if is_ws else comet.tcp)]
        plain, tls = ("ws", "wss") if is_ws else ("", "tls")
        folder = found.path.parent
        addresses = [reachable(one, folder, plain, tls, _machine(comet, found)) for comet, one in listeners]
        if not addresses:
            kind, hint = ("ws", "leave out --ws") if is_ws else ("tcp", "use --ws")
            raise TopologyError([f"{found.path}: no comet listens for {kind}; {hint}, or name an --address"])
    return [address if not is_ws or "://" in address else f"ws://{address}" for address in addresses]


def _topology(path: Path | None) -> Topology | None:
    """That of the file; None where none is named, and ./topology.toml is not there."""
    named = path or _of_environment()
    if named is None and not DEFAULT_FILE.exists():
        return None
    return load(named or DEFAULT_FILE)


def _machine(node: Node, topology: Topology) -> str:
    """Where others find the machine that a node is on; "" where all are on one."""
    endpoint = parse_link(node.endpoint)
    if len({one.host for one in topology.nodes}) < 2 or endpoint.is_local:
        return ""
    return f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host


def reachable(listener: ListenAddress, folder: Path, plain: str = "", tls: str = "", anywhere: str = "") -> str:
    """Its address, `host:port`; with TLS by a name that its certificate is for.

    Args:
        folder: of the topology.
        plain, tls: the schemes to put before it, without and with TLS; "" for none.
        anywhere: the host of one that listens at every address; "" for loopback.
    """
    host, _, port = listener.address.rpartition(":")
    if host in _EVERY:
        host = anywhere or _EVERY[host]
    if listener.tls:
        from zim.cli.certified import certified  # brings cryptography, for the few who have TLS

        host = certified(host, folder / listener.tls[0].certificate)
    scheme = tls if listener.tls else plain
    return f"{scheme}://{host}:{port}" if scheme else f"{host}:{port}"

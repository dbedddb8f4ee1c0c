"""Which fabric a command talks to: an address, a topology file, ./topology.toml, or goim's ports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zim.errors import TopologyError
from zim.topology import Topology, load

DEFAULT_FILE = Path("topology.toml")
DEFAULT_HTTP = "127.0.0.1:7172"
DEFAULT_TCP = "127.0.0.1:8080"
DEFAULT_WS = "127.0.0.1:8090"


def http_address(http: str | None, topology: Path | None) -> str:
    """Where to push: `http`, or the first logic node of the topology.

    Raises:
        TopologyError: the file cannot be used.
    """
    if http:
        return http
    found = _topology(topology)
    return reachable(found.logics[0].http[0].address) if found else DEFAULT_HTTP


def comet_addresses(is_ws: bool, addresses: Sequence[str], topology: Path | None) -> list[str]:
    """Where to listen: `addresses`, or all comets of the topology that have such a listener.

    Raises:
        TopologyError: the file cannot be used, or no comet of it has one.
    """
    found = None if addresses else _topology(topology)
    if not addresses and found is None:
        addresses = [DEFAULT_WS if is_ws else DEFAULT_TCP]
    elif found is not None:
        listeners = [one for comet in found.comets for one in (comet.ws if is_ws else comet.tcp)]
        addresses = [reachable(listener.address) for listener in listeners]
        if not addresses:
            kind, hint = ("ws", "leave out --ws") if is_ws else ("tcp", "use --ws")
            raise TopologyError([f"{found.path}: no comet listens for {kind}; {hint}, or name an --address"])
    return [address if not is_ws or "://" in address else f"ws://{address}" for address in addresses]


def _topology(path: Path | None) -> Topology | None:
    if path is None and not DEFAULT_FILE.exists():
        return None
    return load(path or DEFAULT_FILE)


def reachable(address: str) -> str:
    """The address `host:port`, or loopback's where it stands for every address."""
    host, _, port = address.rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"

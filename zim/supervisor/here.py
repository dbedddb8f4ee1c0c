"""Which nodes of a topology this machine runs."""

from __future__ import annotations

from zim.errors import TopologyError
from zim.topology import Node, Topology


def nodes_here(topology: Topology, host: str | None) -> list[Node]:
    """Those of one host; all, if that is None.

    Args:
        host: that of `zim up --host`.

    Raises:
        TopologyError: there are none, or they are of several machines.
    """
    path = topology.path
    nodes = [node for node in topology.nodes if host in (None, node.host)]
    if not nodes:
        hosts = sorted({node.host for node in topology.nodes if node.host})
        have = f"there are {', '.join(hosts)}" if hosts else "it names no hosts, so leave --host away"
        raise TopologyError([f"{path}: has no node on host {host}; {have}"])
    hosts = sorted({node.host for node in nodes if node.host})
    if len(hosts) > 1:
        raise TopologyError(
            [f"{path}: is for {len(hosts)} machines: {', '.join(hosts)}; say which one this is: --host {hosts[0]}"]
        )
    return nodes

"""What `zim up` tells of its nodes, at `[fabric] admin`: which are there, and how often each one died."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from zim import __version__
from zim.fabric.health import Health
from zim.fabric.principals import Principals
from zim.metrics import Metric, counter, gauge
from zim.net.entrances import Entrances, Read
from zim.net.visitors import let_in, visitors
from zim.supervisor.running import Supervisor
from zim.topology import Topology
from zim.web.admin import TIMEOUT_S, admin_server
from zim.web.keys import Keys
from zim.web.server import HttpServer


def supervisor_metrics(supervisor: Supervisor) -> Iterator[Metric]:
    """As it is now."""
    yield gauge("zim_up_info", "The supervisor that this is", {__version__: 1}, "version")
    yield gauge("zim_up_node_ready", "1 for a node that is ready, 0 for one that is not", supervisor.is_ready(), "node")
    drained = {name: float(one.state == "drained") for name, one in supervisor.standings().items()}
    yield gauge("zim_up_node_drained", "1 for a node that was drained, and stays away, else 0", drained, "node")
    yield counter("zim_up_node_deaths_total", "How often a node ended unasked", supervisor.deaths, "node")


def _health(supervisor: Supervisor) -> Health:
    missing = tuple(supervisor.missing())
    return Health(not missing, missing)


class Admins:
    """A server for `/metrics`, `/healthz` and `/readyz` at each address of `[fabric] admin`, started.

    Raises:
        NodeError: an address cannot be had, or a certificate not be used.
    """

    def __init__(self, supervisor: Supervisor, topology: Topology) -> None:
        self._principals = Principals(topology.identity.api_keys)
        self._servers: list[HttpServer] = []
        read = partial(supervisor_metrics, supervisor)
        self._entrances = Entrances(topology.path.parent, {"admin": topology.admin}, TIMEOUT_S)
        supervisor.spawn(self._entrances.watch)
        for at, handshakes in zip(topology.admin, self._entrances.handshakes["admin"], strict=True):
            keys = Keys(self._principals) if at.is_reachable else None
            rest = at.host_port, visitors(at), keys, "fabric.admin", handshakes
            self._servers.append(admin_server(read, partial(_health, supervisor), *rest))
            self._servers[-1].start()

    def follow(self, topology: Topology, certificates: Read) -> None:
        """Takes over who may see what. Does not switch."""
        self._principals.know(topology.identity.api_keys)
        self._entrances.follow({"admin": topology.admin}, certificates, TIMEOUT_S)
        let_in(self._servers, topology.admin)

    def close(self) -> None:
        """Ends them."""
        for server in self._servers:
            server.close()

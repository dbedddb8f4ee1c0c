"""What `zim up` tells of its nodes, at `[fabric] admin`: which are there, and how often each one died."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from zim import __version__
from zim.fabric.principals import Principals
from zim.metrics import Metric, counter, gauge
from zim.net.visitors import Visitors
from zim.supervisor.running import Supervisor
from zim.topology import Listeners
from zim.web.admin import admin_server
from zim.web.keys import Keys
from zim.web.server import HttpServer


def supervisor_metrics(supervisor: Supervisor) -> Iterator[Metric]:
    """As it is now."""
    yield gauge("zim_up_info", "The supervisor that this is", {__version__: 1}, "version")
    yield gauge("zim_up_node_ready", "1 for a node that is ready, 0 for one that is not", supervisor.is_ready(), "node")
    yield counter("zim_up_node_deaths_total", "How often a node ended unasked", supervisor.deaths, "node")


def open_admins(supervisor: Supervisor, listeners: Listeners, principals: Principals) -> list[HttpServer]:
    """A server for `/metrics`, `/healthz` and `/readyz` at each address, started.

    Args:
        principals: who may see metrics beyond loopback.

    Raises:
        NodeError: an address cannot be had.
    """
    servers = []
    for at in listeners:
        visitors = Visitors(at.parsed.is_local, at.origins, at.hosts)
        read = partial(supervisor_metrics, supervisor)
        keys = Keys(principals)
        servers.append(admin_server(read, supervisor.missing, at.host_port, visitors, keys, "fabric.admin"))
        servers[-1].start()
    return servers

"""Takes over a changed topology in a fabric that runs: `zim reload`, or SIGHUP.

The file is read and checked first, and the keys that it names: if anything is wrong nothing changes. Then each node is
told to read it, and says which one it has read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from gevent.lock import BoundedSemaphore

from zim.errors import NodeError, ZimError
from zim.identity.link_keys import own_secret
from zim.net.entrances import Read, read_certificates
from zim.net.threads import in_thread
from zim.net.zap import public_of
from zim.supervisor.admin import Admins
from zim.supervisor.ports import unusable
from zim.supervisor.running import Supervisor
from zim.supervisor.systemd import Manager
from zim.topology import Logic, Node, Topology, TopologyChange, believed_from_now_on, compare, load

log = logging.getLogger(__name__)
audit = logging.getLogger("zim.audit")

RELOAD_S = 10.0  # for a node to do it


class Reloader:
    """See the module.

    Args:
        topology: with which the fabric runs.
        host: that of `zim up --host`.
        follow: takes over the supervisor's own part of a new one, and is told which nodes were added here, before they
            start. Does not switch.
        manager: is told while it goes on.
    """

    def __init__(
        self,
        topology: Topology,
        host: str | None,
        supervisor: Supervisor,
        admins: Admins,
        follow: Callable[[Topology, list[Node]], None],
        manager: Manager,
    ) -> None:
        self._topology, self._supervisor, self._follow = topology, supervisor, follow
        self._host = host
        self._admins, self._manager = admins, manager
        self._one_at_a_time = BoundedSemaphore()

    def on_signal(self) -> None:
        """SIGHUP came."""
        self._supervisor.spawn(self._reload, "SIGHUP")

    def on_order(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """`zim reload` asks. Switches.

        Returns:
            problems: with the file, in words; then nothing has changed. Else taken and waiting, see TopologyChange;
            nodes: those that did not take it over, and why; believed: who needs no proof any more, in words.
        """
        path = asked.get("topology", str(self._topology.path))
        if path != str(self._topology.path):
            return {"problems": [f"this fabric runs with {self._topology.path}, not with {path}"]}
        return self._reload("zim reload")

    def _reload(self, by: str) -> dict[str, Any]:
        with self._one_at_a_time, self._manager.reloading():
            try:
                changes, certificates, added = in_thread(self._read)
            except ZimError as e:
                log.error("not reloaded, nothing has changed", extra={"problem": str(e)})
                return {"problems": str(e).splitlines()}
            except Exception as e:  # no file may end a fabric that runs
                log.exception("not reloaded, nothing has changed")
                return {"problems": [f"reading it failed: {e!r}"]}
            believed = believed_from_now_on(self._topology.identity, changes.topology.identity)
            self._topology = changes.topology
            self._admins.follow(changes.topology, certificates)
            self._follow(changes.topology, added)
            self._supervisor.add(added)
            taken, waiting = list(changes.taken), list(changes.waiting)
            audit.info("reloaded", extra={"by": by, "taken": "; ".join(taken), "waiting": "; ".join(waiting)})
            for who in believed:
                audit.warning("believed without proof from now on", extra={"by": by, "reason": who})
            names = [node.name for node in added]
            late = self._supervisor.reload(changes.topology.digest, RELOAD_S, names, waiting)
            for name, why in late.items():
                log.error("a node has not reloaded", extra={"node": name, "reason": why})
            return {"taken": taken, "waiting": waiting, "nodes": late, "believed": list(believed)}

    def _read(self) -> tuple[TopologyChange, Read, list[Node]]:
        """What changes, the certificates of the supervisor's own listeners, and nodes to be added here. In a thread: it
        blocks."""
        changes = compare(self._topology, load(self._topology.path))
        here = {node.name for node in self._supervisor.nodes}
        hosts = {self._host} if self._host else {"", *(node.host for node in self._supervisor.nodes)}
        added = [node for node in changes.topology.nodes if node.name not in here and node.host in hosts]
        if self._host is None and (elsewhere := [n for n in changes.topology.nodes if n.host not in hosts]):
            raise NodeError(
                f"{elsewhere[0].name} runs on host {elsewhere[0].host}, and this zim up was started without --host:"
                " for several machines start it anew, as zim up --host"
            )
        if busy := unusable(added, ()):
            raise NodeError("\n".join(busy))
        if any(isinstance(node, Logic) for node in self._supervisor.nodes):
            from zim.identity.loading import load_identity  # brings cryptography

            load_identity(changes.topology.identity)
        changed, beside, links = changes.topology, changes.topology.path.parent, changes.topology.links
        for node in (*self._supervisor.nodes, *added):
            read_certificates(beside, changed.node(node.name).listeners)
            if node.name in links.public or (node in added and links.keys is not None):
                own_secret(links, node.name, public_of)
        return changes, read_certificates(beside, {"admin": changed.admin}), added

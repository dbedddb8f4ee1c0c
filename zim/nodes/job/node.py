"""The job: the fan-out. It talks; zim.nodes.job.runner decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import gevent
from typing_extensions import override

from zim.metrics import Metric, counter
from zim.net.links import PeerLink
from zim.net.transport import Inbox, Outlet
from zim.nodes.base import NodeProcess, if_none, not_connected
from zim.nodes.effects import Drained, Effect, Send
from zim.nodes.job.runner import JobRunner
from zim.nodes.queues import queues
from zim.protocol import messages
from zim.topology import Job, Listeners, Topology

log = logging.getLogger(__name__)

EMPTY_S = 5.0  # for what waits for comets that are there; they fetch the rest
LINGER_S = 0.2  # for what is in the sockets' buffers
LOOK_S = 0.02


class JobNode(NodeProcess):
    """One job process."""

    def __init__(self, topology: Topology, job: Job) -> None:
        super().__init__(topology, job)
        self._job = job
        self._is_leaving = False

    @override
    def setup(self) -> None:
        self._inbox = Inbox(self._job.bind.address, self.link_keys)
        self._comets: dict[str, PeerLink[messages.Entry]] = {}
        self._runner = JobRunner(self._comets)

    @override
    def start(self) -> None:
        self._link(self.topology)
        self.spawn(self._inbox.receive, self._on_frame)

    def _link(self, topology: Topology) -> None:
        """To all comets that are not linked yet."""
        for comet in topology.comets:
            if comet.name not in self._comets:
                outlet = Outlet(comet.endpoint, self.link_keys, comet.name)
                link = self._comets[comet.name] = PeerLink(comet.name, outlet, self._job.queue_bytes)
                link.spawn(self.spawn)

    @override
    def follow(self, topology: Topology, prepared: Any) -> None:
        self._link(topology)

    @override
    def missing(self) -> list[str]:
        return not_connected(self._comets)

    @override
    def blocked(self) -> list[str]:
        return if_none(self.missing(), self._comets)

    @override
    def listens(self) -> dict[str, Listeners]:
        return {"bind": (self._job.bind,)}

    @override
    def stop(self) -> None:
        """What waits in the queues the comets will fetch."""

    @override
    def drain(self, asked: Mapping[str, Any]) -> None:
        if not self._is_leaving:
            self._is_leaving = True
            self.spawn(self._leave)

    def _leave(self) -> None:
        """Routers lose their link, and choose another job; what is here goes out. What was on its way the comets
        fetch."""
        self._inbox.close()
        until = time.monotonic() + EMPTY_S
        while self._waiting() and time.monotonic() < until:
            gevent.sleep(LOOK_S)
        gevent.sleep(LINGER_S)
        self.perform([Drained()])

    def _waiting(self) -> int:
        return sum(comet.waiting_bytes for comet in self._comets.values() if comet.is_connected)

    @override
    def standing(self) -> dict[str, Any]:
        return {"backlog_bytes": sum(comet.waiting_bytes for comet in self._comets.values())}

    @override
    def metrics(self) -> Iterator[Metric]:
        runner = self._runner
        yield counter("zim_job_pushes_total", "Pushes that routers sent, cut to this job's comets", runner.pushes)
        yield counter(
            "zim_job_entries_total", "Entries taken into a comet's queue, or dropped there", self._runner.entries
        )
        yield from queues("job", self._comets)

    def _on_frame(self, frame: bytes, router: str) -> None:
        self.perform(self._runner.on_messages(self.decode(frame, messages.ToJob, router), time.monotonic()))

    @override
    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Send(peer=comet, message=messages.Entry() as entry, size=size):
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("push handed on", extra={"push_id": entry.push_id, "comet": comet, "n": entry.n})
                self._comets[comet].put(entry, size)
            case _:
                super().perform_one(effect)

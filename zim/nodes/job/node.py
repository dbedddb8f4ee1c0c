"""The job: the fan-out. Fourth stop of a push: Push comes in from the routers, one Entry for each comet goes out.

It decides nothing: what a comet does not get it fetches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from zim.metrics import Metric, counter
from zim.net.links import Sender
from zim.net.transport import Inbox, Outlet
from zim.nodes.base import NodeProcess
from zim.nodes.queues import queues
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError
from zim.protocol.messages import entry_bytes
from zim.topology import Job, Topology

log = logging.getLogger(__name__)


class JobNode(NodeProcess):
    """One job process."""

    def __init__(self, topology: Topology, job: Job) -> None:
        super().__init__(topology, job)
        self._job = job

    def setup(self) -> None:
        """See NodeProcess."""
        self._inbox = Inbox(self._job.bind.address)
        self._pushes = self._entries = 0
        self._comets: dict[str, Sender[messages.Entry]] = {
            comet.name: Sender(comet.name, Outlet(comet.endpoint), self._job.queue_bytes)
            for comet in self.topology.comets
        }

    def start(self) -> None:
        """See NodeProcess."""
        for comet in self._comets.values():
            self.spawn(comet.run)
            self.spawn(comet.watch)
        self.spawn(self._serve)

    def is_connected(self) -> bool:
        """See NodeProcess."""
        return all(comet.is_connected for comet in self._comets.values())

    def listens(self) -> dict[str, str]:
        """See NodeProcess."""
        return {"bind": self._job.bind.address}

    def stop(self) -> None:
        """See NodeProcess. What waits in the queues the comets will fetch."""

    def metrics(self) -> Iterator[Metric]:
        """See NodeProcess."""
        yield counter("zim_job_pushes_total", "Pushes that routers sent, cut to this job's comets", self._pushes)
        yield counter("zim_job_entries_total", "Entries taken into a comet's queue, or dropped there", self._entries)
        yield from queues("job", self._comets)

    def _serve(self) -> None:
        for frame in self._inbox.received():
            try:
                pushes = codec.decode(frame, messages.ToJob)
            except CodecError as e:
                log.warning("push not understood", extra={"error": str(e)})
                continue
            self._pushes += len(pushes)
            for push in pushes:
                self._hand_on(push)

    def _hand_on(self, p: messages.Push) -> None:
        for t in p.targets:
            comet = self._comets.get(t.comet)
            if comet is not None:
                self._entries += 1
                entry = messages.Entry(
                    p.router, p.term, t.comet, t.inc, t.n, p.push_id, p.op, p.body, t.items, p.left_ms, p.only
                )
                comet.put(entry, entry_bytes(p.body, t.items))

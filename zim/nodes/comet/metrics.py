"""What a comet tells of itself: its connections, what became of messages, the feeds of all shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from zim.fabric.tally import REPORTED
from zim.metrics import Metric, counter, gauge
from zim.nodes.comet.edge import Edge
from zim.nodes.comet.hub import Hub
from zim.nodes.comet.memory import MemoryWatch
from zim.nodes.comet.websocket import WebSocketListener
from zim.protocol.endings import Ending


def upgrade_metric(listeners: Sequence[WebSocketListener]) -> Metric:
    """What did not become a WebSocket, over all listeners."""
    refused = sum((listener.refused for listener in listeners), Counter[int]())
    by_status = {str(status): count for status, count in refused.items()}
    return counter("zim_comet_refused_upgrades_total", "Upgrades to WebSocket that were refused", by_status, "status")


def limit_metrics(edge: Edge, memory: MemoryWatch) -> Iterator[Metric]:
    """What limits have refused, and whether the one of memory is reached."""
    limited = {limit: count for each in edge.refusals for limit, count in each.by_limit.items()}
    yield counter("zim_comet_limited_total", "What was refused because of a limit", limited, "limit")
    yield gauge("zim_comet_memory_bytes", "Memory of this process, where max_memory_bytes is set", memory.used_bytes)
    yield gauge("zim_comet_memory_full", "1 while nobody new comes in, for too little memory", edge.doorkeeper.is_over)


def comet_metrics(hub: Hub, edge: Edge, delivered: int) -> Iterator[Metric]:
    """All but the queues to other nodes.

    Args:
        delivered: messages that sockets took at once.
    """
    yield gauge("zim_comet_open_connections", "Sockets that are open", edge.places)
    yield counter("zim_comet_accepted_connections_total", "Sockets that came", edge.accepted)
    yield counter("zim_comet_refused_connections_total", "Of which the comet was full for", edge.refused)
    yield counter("zim_comet_closed_connections_total", "Connections that ended", edge.closed_for, "reason")
    broken = sum(edge.closed_for[ending.word] for ending in Ending if ending.is_broken)
    yield counter("zim_comet_broken_connections_total", "Of which the client broke the wire", broken)
    yield gauge("zim_comet_sessions", "Clients that are who they say", len(hub.sessions))
    yield counter("zim_comet_resumes_total", "Streams that clients went on with", hub.passes.resumed, "recovered")

    links = hub.links
    settled = {outcome: sum(link.settled[outcome] for link in links.values()) for outcome in REPORTED}
    settled["delivered"] += delivered
    yield counter("zim_comet_deliveries_total", "What became of messages, by session", settled, "outcome")
    yield gauge("zim_comet_outbox_bytes", "What waits for slow clients", edge.waiting_bytes())
    yield gauge("zim_comet_catchup_bytes", "What waits for clients that catch up", hub.passes.catchup_bytes())

    entries = {shard: link.entries for shard, link in links.items()}
    yield counter("zim_comet_entries_total", "Entries handled", entries, "shard")
    fetches = {shard: link.fetches for shard, link in links.items()}
    yield counter("zim_comet_fetches_total", "Times that missing entries were asked for", fetches, "shard")
    registrations = {shard: link.registrations for shard, link in links.items()}
    told = "Times that the owner of a shard was told everything"
    yield counter("zim_comet_registrations_total", told, registrations, "shard")
    held = {shard: link.held_bytes for shard, link in links.items()}
    dropped = {shard: link.dropped for shard, link in links.items()}
    yield counter("zim_comet_held_dropped_total", "Entries that found no room to wait", dropped, "shard")
    yield gauge("zim_comet_held_bytes", "Entries that wait for a missing one, or their turn", held, "shard")

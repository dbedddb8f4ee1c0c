"""What a router tells of itself: the ledger, who is online, what waits, how the log does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from zim.metrics import SECONDS, SIZES, Histogram, Metric, counter, gauge
from zim.nodes.queues import Queue, queues
from zim.nodes.router.intake import STATUSES
from zim.nodes.router.log import Backlog, Log
from zim.nodes.router.log.shared import SharedLog
from zim.nodes.router.shard_counts import QUEUES, ShardCounts, shard_queues
from zim.nodes.router.shard_runner import ShardRunner
from zim.nodes.router.stream_limit import StreamLimit
from zim.protocol.orders import Why


class LogCounts:
    """What the log has done in this run.

    Attributes:
        seconds: how long commits took, waiting for their turn included.
        pushes: how many each carried.
    """

    def __init__(self) -> None:
        self.seconds, self.pushes = Histogram(SECONDS), Histogram(SIZES)

    def metrics(self, logs: Sequence[Log], trimmed: int, ahead_ms: int) -> Iterator[Metric]:
        """As they are now. logs: of all shards that are here; ahead_ms: see LogClock."""
        backlogs = [log.backlog for log in logs]
        backlog = Backlog(sum(b.records for b in backlogs), sum(b.keys for b in backlogs))
        is_full = any(log.is_full for log in logs)
        yield self.seconds.metric("zim_router_commit_seconds", "How long commits took")
        yield self.pushes.metric("zim_router_commit_pushes", "How many pushes each commit carried")
        yield counter("zim_router_trimmed_records_total", "Records that retention let go", trimmed)
        old = "What is past its retention or window and not deleted yet: records, and publishers' keys"
        yield gauge("zim_router_trim_backlog", old, dict(backlog._asdict()), "what")
        yield gauge("zim_router_log_full", "1 while the disk has no room for the log", is_full)
        ahead = "How far log time is ahead of the wall clock; far from 0 one of the two was wrong"
        yield gauge("zim_router_log_time_ahead_seconds", ahead, ahead_ms / 1000)


def shared_log_metrics(shared: SharedLog) -> Iterator[Metric]:
    """Of a log that routers share."""
    single = "1 while commits of the log are on one machine alone, and what is accepted may be lost with it"
    yield gauge("zim_router_log_single_copy", single, not shared.is_replicated)
    made = "Connections made to the log's engine; more of them where it fails or hangs"
    yield counter("zim_router_log_connections_total", made, shared.connections)


class _Together(NamedTuple):
    """A queue of each shard as one."""

    waiting_bytes: int
    dropped: int


def router_metrics(
    runners: Sequence[ShardRunner[Any]],
    counts: ShardCounts,
    jobs: Mapping[str, Queue],
    limit: StreamLimit,
    dropped_answers: int,
) -> Iterator[Metric]:
    """All but the log's. Does not switch: the ledger is one moment's.

    Args:
        runners: of the shards that are here.
        counts: over them, and those that were here.
        jobs: the queues to them.
        limit: of pushes into each stream.
        dropped_answers: see Server.
    """
    shards = [runner.shard for runner in runners]
    yield gauge("zim_router_shards", "Shards that it owns", len(shards))
    yield from _ledger(counts, sum(shard.pending() for shard in shards))
    alive = [feed for shard in shards for feed in shard.directory.feeds.values() if feed.is_alive]
    answered = {status: counts.answered[status] for status in STATUSES}
    yield counter("zim_router_publishes_total", "Publishers that were answered", answered, "status")
    limited = limit.refusals.by_limit
    yield counter("zim_router_limited_total", "What was refused because of a limit", limited, "limit")
    yield gauge("zim_router_online_sessions", "Sessions in the directory", sum(len(f.sessions) for f in alive))
    yield gauge("zim_router_rooms", "Rooms that somebody is in", sum(shard.directory.n_rooms() for shard in shards))
    closed = {why: counts.closed[why] for why in get_args(Why)}
    yield counter("zim_router_closed_sessions_total", "Sessions that had to go", closed, "reason")
    yield gauge("zim_router_bans", "Bans in force", sum(len(shard.control.bans) for shard in shards))
    yield gauge("zim_router_leased_comets", "Comets that have a lease", len({feed.comet for feed in alive}))
    is_rebuilding = any(shard.is_rebuilding for shard in shards)
    yield gauge("zim_router_rebuilding", "1 until every comet had the time to say who is online", is_rebuilding)
    behind: Counter[str] = Counter()
    for feed in alive:
        behind[feed.comet] += feed.behind_bytes + feed.admitted_bytes
    yield gauge("zim_router_behind_bytes", "What each comet has not handled", behind, "comet")
    held = dict.fromkeys(QUEUES, 0)
    for runner in runners:
        for name, queue in shard_queues(runner).items():
            held[name] += queue.waiting_bytes
    together = {name: _Together(held[name], counts.dropped[name]) for name in QUEUES}
    yield from queues("router", {**together, **jobs})
    dropped = counts.dropped_questions
    yield counter("zim_router_dropped_questions_total", "Questions that could not wait", dropped)
    yield counter("zim_router_dropped_answers_total", "Answers whose asker was gone or did not read", dropped_answers)


def _ledger(counts: ShardCounts, pending: int) -> Iterator[Metric]:
    yield counter("zim_router_pushes_total", "Pushes that were kept", counts.pushes)
    yield gauge("zim_router_targeted_sessions", "Sessions that pushes were for, all in all", counts.tally.targeted)
    yield counter("zim_router_sessions_total", "What became of them", counts.tally.outcomes, "outcome")
    yield gauge("zim_router_pending_sessions", "Of which it is not known yet", pending)
    yield counter("zim_router_offline_users_total", "Users of pushes who had no session", counts.offline)

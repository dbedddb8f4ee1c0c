"""What a router tells of itself: the ledger, who is online, what waits, how the log does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zim.metrics import SECONDS, SIZES, Histogram, Metric, counter, gauge
from zim.nodes.queues import Queue, queues
from zim.nodes.router.log import Backlog
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import Shard


class LogCounts:
    """What the log has done in this run.

    Attributes:
        seconds: how long commits took, waiting for their turn included.
        pushes: how many each carried.
    """

    def __init__(self) -> None:
        self.seconds, self.pushes = Histogram(SECONDS), Histogram(SIZES)

    def metrics(self, is_full: bool, trimmed: int, backlog: Backlog, ahead_ms: int) -> Iterator[Metric]:
        """As they are now. ahead_ms: see LogClock."""
        yield self.seconds.metric("zim_router_commit_seconds", "How long commits took")
        yield self.pushes.metric("zim_router_commit_pushes", "How many pushes each commit carried")
        yield counter("zim_router_trimmed_records_total", "Records that retention let go", trimmed)
        old = "What is past its retention or window and not deleted yet: records, and publishers' keys"
        yield gauge("zim_router_trim_backlog", old, dict(backlog._asdict()), "what")
        yield gauge("zim_router_log_full", "1 while the disk has no room for the log", is_full)
        ahead = "How far log time is ahead of the wall clock; far from 0 one of the two was wrong"
        yield gauge("zim_router_log_time_ahead_seconds", ahead, ahead_ms / 1000)


def router_metrics(shard: Shard[Any], waiting: Mapping[str, Queue], dropped_answers: int) -> Iterator[Metric]:
    """All but the log's. Does not switch: the ledger is one moment's.

    Args:
        waiting: the node's queues by name, but for the intake's own.
        dropped_answers: see Server.
    """
    yield from _ledger(shard.ledger, shard.pending())
    directory, intake = shard.directory, shard.intake
    alive = [feed for feed in directory.feeds.values() if feed.is_alive]
    yield counter("zim_router_publishes_total", "Publishers that were answered", intake.answered, "status")
    limited = intake.limit.refusals.by_limit
    yield counter("zim_router_limited_total", "What was refused because of a limit", limited, "limit")
    yield gauge("zim_router_online_sessions", "Sessions in the directory", sum(len(f.sessions) for f in alive))
    yield gauge("zim_router_rooms", "Rooms that somebody is in", directory.n_rooms())
    closed = {str(why): count for why, count in shard.control.closed.items()}
    yield counter("zim_router_closed_sessions_total", "Sessions that had to go", closed, "reason")
    yield gauge("zim_router_bans", "Bans in force", len(shard.control.bans))
    yield gauge("zim_router_leased_comets", "Comets that have a lease", len(alive))
    yield gauge("zim_router_rebuilding", "1 until every comet had the time to say who is online", shard.is_rebuilding)
    behind = {feed.comet: feed.behind_bytes + feed.admitted_bytes for feed in alive}
    yield gauge("zim_router_behind_bytes", "What each comet has not handled", behind, "comet")
    yield from queues("router", {"behind": intake, **waiting})
    yield counter("zim_router_dropped_questions_total", "Questions that could not wait", shard.dropped_questions)
    yield counter("zim_router_dropped_answers_total", "Answers whose asker was gone or did not read", dropped_answers)


def _ledger(ledger: RouterLedger, pending: int) -> Iterator[Metric]:
    run = ledger.this_run()
    yield counter("zim_router_pushes_total", "Pushes that were kept", run.pushes)
    yield gauge("zim_router_targeted_sessions", "Sessions that pushes were for, all in all", run.tally.targeted)
    yield counter("zim_router_sessions_total", "What became of them", run.tally.outcomes, "outcome")
    yield gauge("zim_router_pending_sessions", "Of which it is not known yet", pending)
    yield counter("zim_router_offline_users_total", "Users of pushes who had no session", run.offline)

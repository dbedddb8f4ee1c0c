"""What shards have counted while this process had them. Pure: no socket, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from zim.fabric.tally import Tally
from zim.net.batches import Batches
from zim.nodes.router.intake import Intake
from zim.nodes.router.shard_runner import ShardRunner

QUEUES = ("behind", "commit", "lookup", "change", "read", "acknowledge")


class ShardCounts:
    """Sums over shards. One that goes elsewhere leaves what it has counted here, for a counter must not fall.

    Attributes:
        pushes, offline: see Totals; tally: sessions.
        answered: publishers, by status; closed: sessions, by reason; dropped: of each queue, by its name.
        dropped_questions: that found no room.
        trimmed: records.
    """

    def __init__(self) -> None:
        self.pushes = self.offline = self.dropped_questions = self.trimmed = 0
        self.tally = Tally()
        self.answered: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def leave(self, runner: ShardRunner[Any]) -> None:
        """A shard goes elsewhere; what is pending of it is the next owner's to account for. So is what had not been
        stored when this router was declared dead: over all routers that counts twice.
        """
        self.add(runner)
        self.tally -= Tally(targeted=runner.shard.pending())

    def plus(self, runners: Iterable[ShardRunner[Any]]) -> ShardCounts:
        """With what these have counted."""
        found = deepcopy(self)
        for runner in runners:
            found.add(runner)
        return found

    def add(self, runner: ShardRunner[Any]) -> None:
        """What a shard has counted."""
        shard, run = runner.shard, runner.shard.ledger.this_run()
        self.pushes += run.pushes
        self.offline += run.offline
        self.tally += run.tally
        self.answered.update(shard.intake.answered)
        self.closed.update({str(why): n for why, n in shard.control.closed.items()})
        self.dropped.update({name: queue.dropped for name, queue in shard_queues(runner).items()})
        self.dropped_questions += shard.dropped_questions
        self.trimmed += runner.upkeep.trimmed


def shard_queues(runner: ShardRunner[Any]) -> Mapping[str, Batches[Any] | Intake[Any]]:
    """What waits in a shard."""
    intake, questions = runner.shard.intake, runner.questions
    found = intake, intake.commits, intake.lookups, questions.changes, questions.reads, questions.acks
    return dict(zip(QUEUES, found, strict=True))

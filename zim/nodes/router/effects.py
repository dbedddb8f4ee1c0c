"""What a router's runner wants from its disk, as frozen values, each with what its result is. Pure.

`zim.nodes.router.storage` performs them. A result may be an error instead: what the log has raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zim.fabric.bans import Ban, Banned
from zim.fabric.tally import Tally
from zim.nodes.effects import Effect
from zim.nodes.router.admission import Admission
from zim.nodes.router.log import Lease, NewPush
from zim.nodes.router.log.receipts import Before, RouterReceipt
from zim.nodes.router.log.shared import Beat, Holding
from zim.nodes.router.shard import Applied
from zim.protocol.messages import Acknowledge, Ask, Read

DiskQuestion = Read | Ask
Askers = Sequence[tuple[Any, int]]  # who asks, and the number of the request


class DiskEffect(Effect, frozen=True):
    """Something that takes its time. Others go on meanwhile; its result comes back to the runner."""


class Append(DiskEffect, frozen=True):
    """One commit for pushes. Result: an Appended for each."""

    batch: Sequence[Admission[Any]]
    pushes: Sequence[NewPush]


class Settle(DiskEffect, frozen=True):
    """What became of an Append that ended as Unknown? Result: as of Append, or None: it is not stored."""

    batch: Sequence[Admission[Any]]
    pushes: Sequence[NewPush]


class LookUp(DiskEffect, frozen=True):
    """Where is a push with a key? Result: as of Log.find."""

    admission: Admission[Any]
    push: NewPush


class AppliedChanges(NamedTuple):
    """Changes of a comet that were applied, and wait for the heads of their streams. inc: of the comet."""

    asker: Any
    inc: int
    applied: Sequence[Applied]


class ReadHeads(DiskEffect, frozen=True):
    """Where do streams stand, and the cursors of users' ones? Result: heads, and cursors, both by stream."""

    changes: Sequence[AppliedChanges]
    streams: Sequence[str]
    with_cursors: Sequence[str]


class ReadDisk(DiskEffect, frozen=True):
    """The same question of all who ask it. Result: a StreamPage for Read; for Ask see
    `zim.nodes.router.answering`."""

    question: DiskQuestion
    askers: Askers


class MoveCursors(DiskEffect, frozen=True):
    """Forward to these offsets, by stream and epoch. Result: where they are, by stream."""

    offsets: Mapping[tuple[str, str], int]
    asked: Sequence[tuple[Any, Acknowledge]]


class StoreReceipts(DiskEffect, frozen=True):
    """What has changed of receipts, and the totals over all pushes. Result: None."""

    receipts: Sequence[RouterReceipt]
    tally: Tally
    offline: int
    pushes: int
    now_ms: int


class Trim(DiskEffect, frozen=True):
    """Lets go of some of what no rule keeps. Result: how many went."""

    now_ms: int
    before_ms: int
    budget: int


class ReserveSeqs(DiskEffect, frozen=True):
    """More numbers for sessions. Result: the first one."""

    count: int


class KeepBans(DiskEffect, frozen=True):
    """Bans to keep, and whose to let go. Result: None.

    Attributes:
        asker, m: who asked for it; None if a ban has ended by itself.
    """

    bans: Sequence[Ban]
    lifted: Sequence[Banned]
    asker: Any = None
    m: Ask | None = None


class CountOn(DiskEffect, frozen=True):
    """The next step of counting; it is no work for the disk, but others come first. Result: None."""


# ---------------------------------------------------------------- shards of a shared log


class OwnerEffect(Effect, frozen=True):
    """A word to the rows of a shared log, or to one of its shards. Its result comes back to the runner."""


class LookAround(OwnerEffect, frozen=True):
    """What do the rows say? Result: a Rows."""


class Enter(OwnerEffect, frozen=True):
    """A new run of this router. Result: its number."""


class BeatNow(OwnerEffect, frozen=True):
    """This run lives. Result: a Rows. time_ms: log time; asked_at: monotonic."""

    run: int
    time_ms: int
    comets: int
    asked_at: float


class Bury(OwnerEffect, frozen=True):
    """A run is dead. Result: whether the rows say so now."""

    beat: Beat


class Take(OwnerEffect, frozen=True):
    """A shard that has no owner is ours. Result: the Lease; None if it is not."""

    holding: Holding
    run: int


class Give(OwnerEffect, frozen=True):
    """A shard of ours is another's. Result: the Lease of the next owner; None if it is ours still, or was lost."""

    lease: Lease
    router: str
    run: int


class LeaveRows(OwnerEffect, frozen=True):
    """This run ends. Result: None."""

    run: int


class OpenShard(OwnerEffect, frozen=True):
    """Reads what a new owner must know. Result: a ShardOpened."""

    lease: Lease


class CloseShard(OwnerEffect, frozen=True):
    """A shard is not ours any more: lets go of what is open. Done at once, without a result."""

    lease: Lease


class HandOver(Effect, frozen=True):
    """A shard is to be given to another router, once nothing is under way. For the runner itself."""

    lease: Lease
    to: str
    run: int


class ShardOpened(NamedTuple):
    """What a shard's log has to say to its new owner.

    Attributes:
        last_time_ms: the newest log time there.
        next_seq: the first session number that may be given; seqs_end: the first one that is not reserved.
        before: what was before of all pushes.
        forgotten: see Questions.
        recalled: ids of the pushes of the last seconds, by which a retry is told from a new push; None if the owner
            before had its own process, and nobody looks.
        bans: that it keeps.
    """

    lease: Lease
    last_time_ms: int
    next_seq: int
    seqs_end: int
    before: Before
    forgotten: Mapping[str, int]
    recalled: frozenset[str] | None
    bans: Sequence[Ban]


class ForgetIdle(Effect, frozen=True):
    """Lets go of what is old in live-only streams. Done at once: it is in memory.

    Attributes:
        now, now_ms: monotonic seconds; log time.
        left: see Directory.
    """

    now: float
    now_ms: int
    left: Sequence[str]


class AtShard(Effect, frozen=True):
    """Something for the log of one shard, in one term."""

    lease: Lease
    effect: DiskEffect | ForgetIdle

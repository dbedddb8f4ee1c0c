"""A shard's runner: what it does with a message, the result of an effect, the time. Third stop of a push.

In: Publish. Out: Append to the log; once that is done a Push for each job, and the publishers' answers. The parts that
decide are `intake` (which pushes are taken), `shard` (whom they reach, what a comet is told), `questions` (what is
asked of the disk), `counting` (who is in rooms) and `upkeep`. Pure: no socket, no clock; the simulator runs it as it
ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic

import msgspec
from msgspec.structs import replace

from zim.errors import Unavailable, Unknown
from zim.fabric.answers import Lifted
from zim.fabric.bans import Ban
from zim.fabric.questions import BanWho, LiftBan
from zim.fabric.sharding import rank
from zim.nodes.effects import ERROR, MESSAGE_BYTES, Effect, End, Note, Replies, Send
from zim.nodes.router.admission import Peer, new_push
from zim.nodes.router.answering import COUNTED, KEPT, STORED
from zim.nodes.router.control import kept_ban
from zim.nodes.router.counting import Counting
from zim.nodes.router.effects import (
    Append,
    CountOn,
    DiskEffect,
    KeepBans,
    LookUp,
    MoveCursors,
    ReadDisk,
    ReadHeads,
    ReserveSeqs,
    Settle,
    StoreReceipts,
    Trim,
)
from zim.nodes.router.log import Appended
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.questions import Questions
from zim.nodes.router.shard import Shard
from zim.nodes.router.upkeep import Upkeep
from zim.protocol import messages
from zim.protocol.messages import entry_bytes

ENDED_AT_ONCE = 1_000  # bans that are let go of in one commit


SETTLE_S = 0.2  # until it is asked again what became of a commit
SETTLED_S = 5.0  # then nobody can tell: whoever owns the shard next reads the truth


class ShardRunner(Generic[Peer]):
    """One shard of the fabric, in one term of its owner.

    Attributes:
        shard, questions, counting, upkeep: its parts.
        clock: log time.
    """

    def __init__(
        self,
        shard: Shard[Peer],
        clock: LogClock,
        seqs_end: int,
        forgotten: Mapping[str, int],
        comets: Sequence[str],
        jobs: Sequence[str],
        now: float,
    ) -> None:
        """
        Args:
            seqs_end: see Upkeep.
            forgotten: see Questions.
            comets, jobs: names of all of them.
            now: monotonic seconds, as everywhere below.
        """
        self.shard, self.clock = shard, clock
        self.questions = Questions(shard, forgotten)
        self.counting = Counting(shard)
        self.upkeep = Upkeep(shard, seqs_end, now)
        self._ranks = _ranks(comets, jobs)
        self._there: set[str] = set()  # jobs that are connected
        self._keeping: list[KeepBans] = []
        self._is_ending = False
        self._unsettled: Settle | None = None  # it could not be told yet, and is asked for again
        self._settle_at, self._settle_until = 0.0, 0.0

    @property
    def is_committing(self) -> bool:
        """Pushes are on their way into the log, or wait for a comet that is behind."""
        return self.shard.intake.is_busy

    # -- messages

    def on_messages(self, asker: Peer, asked: Sequence[messages.ToShard], now: float) -> list[Effect]:
        """What a comet, a logic or a person at a REPL wants."""
        now_ms = self.clock.at(now)
        answers = [(asker, a) for m in asked if (a := self._on_message(asker, m, now, now_ms)) is not None]
        return self._begin([Replies(answers)] if answers else [], now)

    def _on_message(self, asker: Peer, m: messages.ToShard, now: float, now_ms: int) -> Any:
        """The answer, if it is known at once."""
        shard = self.shard
        match m:
            case messages.Publish():
                return shard.intake.publish(asker, m, now, now_ms, self.clock.wall_at(now))
            case messages.Changes():
                if applied := shard.changes(m, now):
                    self.questions.tell_heads(asker, m, applied)
                shard.hears(asker, m.comet, m.inc)
            case messages.Renew():
                shard.hears(asker, m.comet, m.inc)
                return shard.renew(m, now, now_ms)
            case messages.AskTime():
                return messages.LogTime(m.req, shard.name, shard.term, now_ms)
            case messages.Fetch():
                return shard.fetch(m)
            case messages.Read(stream=stream) if not shard.owns(stream, "who reads"):
                return messages.Records(m.req, shard.name, stream, "", 0, 0, [], 0)
            case messages.Ask():
                return self._on_question(asker, m, now)
            case messages.Read():
                self.questions.ask(asker, m, now)
            case messages.Acknowledge():
                self.questions.acknowledge(asker, m)
        return None

    def _on_question(self, asker: Peer, m: messages.Ask, now: float) -> Any:
        shard, question = self.shard, m.question
        if (stream := question.asked_at()) and not shard.owns(stream, "a logic"):
            return messages.Answered(m.req, shard.name, None)
        if isinstance(question, KEPT):
            return self._keep(asker, m, now)
        if isinstance(question, COUNTED):
            self.counting.ask(asker, m)
        elif isinstance(question, STORED):
            self.questions.ask(asker, m, now)
        else:
            return shard.ask(asker, m)
        return None

    def know(self, comets: Sequence[str], jobs: Sequence[str]) -> None:
        """All of a topology, which may have more of them than before."""
        self.shard.know(comets)
        self._ranks = _ranks(comets, jobs)

    def on_link(self, job: str, is_connected: bool) -> None:
        """A job has come, or gone."""
        (self._there.add if is_connected else self._there.discard)(job)

    def _begin(self, out: list[Effect], now: float) -> list[Effect]:
        """Adds what can begin now: one batch of each kind is under way at a time."""
        intake = self.shard.intake
        if batch := intake.commits.begin():
            out.append(Append(batch, [new_push(admission) for admission in batch]))
        out += [LookUp(admission, new_push(admission)) for admission in intake.lookups.begin()]
        out += self.questions.begin(now)
        out += self.counting.begin(now)
        out += self._keeping
        self._keeping.clear()
        self.shard.control.look(now, self.clock.at(now))
        if orders := self.shard.control.due(now):
            out.append(Replies(orders))
        if self.shard.notes:
            out += self.shard.notes
            self.shard.notes.clear()
        return out

    # -- results

    def on_done(self, effect: DiskEffect, result: Any, now: float) -> list[Effect]:
        """An effect has its result; or the error that the log has raised."""
        now_ms = self.clock.at(now)
        match effect:
            case Append() | Settle():
                out = self._on_appended(effect, result, now, now_ms)
            case LookUp():
                out = self._on_looked_up(effect, result)
            case ReadHeads():
                out = self.questions.on_heads(effect, result)
            case ReadDisk():
                out = self.questions.on_read(effect, result, now)
            case MoveCursors():
                out = self.questions.on_cursors(effect, result)
            case StoreReceipts():
                out = self.upkeep.on_receipts(effect, result)
            case Trim():
                out = self.upkeep.on_trimmed(result, now, now_ms)
            case ReserveSeqs():
                out = self.upkeep.on_reserved(effect, result)
            case KeepBans():
                out = self._on_kept(effect, result)
            case CountOn():
                out = self.counting.go_on(now)
            case _:
                raise AssertionError(effect)
        return self._begin(out, now)

    def _on_appended(
        self, effect: Append | Settle, result: Sequence[Appended] | Exception | None, now: float, now_ms: int
    ) -> list[Effect]:
        """A commit has ended. The next one begins once it is known how: only then the next offset is."""
        intake, batch = self.shard.intake, effect.batch
        if isinstance(effect, Append) and isinstance(result, Unknown):
            note = Note(ERROR, "the end of a commit is not known", {"pushes": len(batch), "error": str(result)})
            self._settle_until = now + SETTLED_S
            return [note, Settle(batch, effect.pushes)]
        may_settle = isinstance(effect, Settle) and now < self._settle_until
        if may_settle and isinstance(result, Unknown | Unavailable):
            self._unsettled, self._settle_at = Settle(batch, effect.pushes), now + SETTLE_S
            return []
        intake.commits.end()
        if isinstance(effect, Append) and isinstance(result, Unavailable):
            note = Note(ERROR, "pushes refused", {"pushes": len(batch), "error": str(result)})
            return [note, Replies(intake.not_stored(batch))]
        if isinstance(result, Exception):  # not even that can be told; our next run reads the truth
            intake.commits.halt()
            return [Replies(intake.not_told(batch)), End(str(result))]
        if result is None:
            return [Replies(intake.not_stored(batch))]
        pushes, answers = self.shard.committed(batch, result, now, now_ms)
        return [*(part for push in pushes for part in self._hand_down(push)), Replies(answers)]

    def _hand_down(self, push: messages.Push) -> list[Effect]:
        """To the job that serves each comet, or the next one if that is away: one pipe leads to a comet, in order."""
        by_job: dict[str, list[messages.Target]] = {}
        for target in push.targets:
            ranked = self._ranks[target.comet]
            job = next((name for name in ranked if name in self._there), ranked[0])
            by_job.setdefault(job, []).append(target)
        if len(by_job) == 1:
            (job,) = by_job
            return [Send(job, push, _size(push))]
        parts = {job: msgspec.structs.replace(push, targets=targets) for job, targets in by_job.items()}
        return [Send(job, part, _size(part)) for job, part in parts.items()]

    def _on_looked_up(self, effect: LookUp, result: Any) -> list[Effect]:
        intake, admission = self.shard.intake, effect.admission
        intake.lookups.end()
        if isinstance(result, Exception):
            fields = {"push_id": admission.push.push_id, "error": str(result)}
            return [Note(ERROR, "a key cannot be looked up", fields), Replies(intake.not_told([admission]))]
        return [Replies(intake.looked_up(admission, result))]

    # -- bans

    def _keep(self, asker: Peer, m: messages.Ask, now: float) -> Any:
        """A ban, or the end of one: it is kept first. The answer, if there is no room for it."""
        question, now_ms = m.question, self.clock.at(now)
        if isinstance(question, LiftBan):
            self._keeping.append(KeepBans([], [question.banned], asker, m))
        elif isinstance(question, BanWho):
            ends_ms = now_ms + int(question.for_s * 1000) if question.for_s else 0
            ban = Ban(question.banned, question.reason, question.by, self.clock.wall_at(now), ends_ms)
            if not self.shard.control.has_room(ban.banned):
                return messages.Answered(m.req, self.shard.name, replace(kept_ban(ban, now_ms), is_kept=False))
            self._keeping.append(KeepBans([ban], [], asker, m))
        return None

    def _on_kept(self, effect: KeepBans, result: Any) -> list[Effect]:
        control = self.shard.control
        self._is_ending = self._is_ending and effect.m is not None
        if isinstance(result, Exception):  # nobody is told anything: who asks does not know what became of it
            return [Note(ERROR, "a ban cannot be kept", {"error": str(result)})]
        answer: Any = None
        for ban in effect.bans:
            answer = kept_ban(ban, control.now_ms, control.put(ban))
        for banned in effect.lifted:
            answer = Lifted(control.lift(banned))
        if effect.m is None:
            return []
        return [Replies([(effect.asker, messages.Answered(effect.m.req, self.shard.name, answer))])]

    def _end_bans(self, now_ms: int) -> list[Effect]:
        """Bans that are over by themselves."""
        if self._is_ending or not (ended := self.shard.control.ended(now_ms, ENDED_AT_ONCE)):
            return []
        self._is_ending = True
        return [KeepBans([], ended)]

    # -- time

    def on_tick(self, now: float, wall_s: float) -> list[Effect]:
        """Ten times a second: all that rests on the silence of others, and what is due. wall_s: the wall clock."""
        self.clock.see(wall_s, now)
        answers = self.shard.tick(now)
        out: list[Effect] = [Replies(answers)] if answers else []
        out += self._end_bans(self.clock.at(now))
        if self._unsettled is not None and now >= self._settle_at:
            out.append(self._unsettled)
            self._unsettled = None
        return self._begin(out + self.upkeep.begin(now, self.clock.at(now)), now)

    def last_words(self, now: float) -> StoreReceipts | None:
        """What is to be stored before the node ends."""
        return self.upkeep.receipts(self.clock.at(now))


def _size(push: messages.Push) -> int:
    items = [item for target in push.targets for item in target.items]
    return MESSAGE_BYTES * len(push.targets) + entry_bytes(push.body, items, push.only)


def _ranks(comets: Sequence[str], jobs: Sequence[str]) -> dict[str, list[str]]:
    """Of each comet: jobs, the best one first."""
    return {comet: rank(comet, jobs) for comet in comets}

"""The four kinds of node in virtual time: zim's runners as they ship, and a driver that performs their effects.

Only what a real driver does stands here: messages go over the kernel's links, and the disk and passes take their time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tests.simulation.disk import (
    COMETS,
    JOBS,
    LOGICS,
    MAX_BEHIND_BYTES,
    ROUTERS,
    Disk,
    RouterDisk,
)
from tests.simulation.kernel import Kernel, Node, Violation
from zim.fabric.push import Published, Push
from zim.nodes.calls import RETRY_S
from zim.nodes.comet.effects import Pass, Replaced, SessionEffect, Write
from zim.nodes.comet.runner import CometRunner
from zim.nodes.comet.views import Session
from zim.nodes.effects import Effect, End, Note, Replies, Send
from zim.nodes.job.runner import JobRunner
from zim.nodes.logic.auth import GoimTokens
from zim.nodes.logic.runner import LogicRunner, Settled
from zim.nodes.performer import Performer
from zim.nodes.router.effects import Append, DiskEffect, ForgetIdle, ReadDisk, Settle
from zim.nodes.router.runner import RouterRunner
from zim.nodes.router.shard import Shard
from zim.protocol import messages


class Driver(Node, Performer):
    """Performs what any runner wants."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        Node.__init__(self, kernel, name)
        Performer.__init__(self)

    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Send(peer=peer, message=message):
                if not self.send(peer, message):
                    self.on_not_sent(message)
            case Replies(answers=answers):
                for asker, m in answers:
                    self.send(asker, m)
            case Note(event=event, fields=fields):
                self.kernel.note(self.name, event, fields)
            case _:
                raise AssertionError(effect)

    def on_not_sent(self, message: Any) -> None:
        """Nobody is there."""


class RouterNode(Driver):
    """Only the disk takes time."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        super().__init__(kernel, name)
        self.disk = RouterDisk(name)
        self.working: list[DiskEffect] = []
        self.on_append: Callable[[str, str, int, str], None] = lambda stream, epoch, offset, push_id: None
        self.on_answer: Callable[[str, messages.PublishReply], None] = lambda peer, m: None

    def boot(self) -> None:
        shard: Shard[str] = self.disk.open(self.name, lambda: self.kernel.now)
        self.runner = RouterRunner(shard, self.disk.clock, 1 << 40, {}, COMETS, JOBS, self.now)
        self.booted_at, self.working = self.now, []
        self.every(0.1, lambda: self.perform(self.runner.on_tick(self.now)))

    def crash(self) -> None:
        """A commit under way may have come to its end; nobody was told."""
        for effect in self.working:
            if isinstance(effect, Append) and not self.disk.is_full and self.kernel.rng.random() < 0.5:
                self._touch_disk(effect)

    def receive(self, src: str, m: Any) -> None:
        for job in JOBS:
            self.runner.on_link(job, self.kernel.is_connected(self.name, job))
        self.disk.check_renew(self.name, self.runner.shard, m)
        self.perform(self.runner.on_messages(src, [m], self.now))
        self.disk.check_behind(self, m)

    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Replies(answers=answers):
                for peer, m in answers:
                    if isinstance(m, messages.PublishReply):
                        self.on_answer(peer, m)
                super().perform_one(effect)
            case DiskEffect():
                self.working.append(effect)
                self.later(self.disk.delay_s(self.kernel.rng, effect), lambda: self._end(effect))
            case ForgetIdle(now=now):
                self.disk.storage.streams.forget(now, self.runner.shard.directory.is_served)
            case End():
                raise Violation(f"{self.name} ends: {effect.why}")
            case _:
                super().perform_one(effect)

    def _end(self, effect: DiskEffect) -> None:
        self.working.remove(effect)
        self.perform(self.runner.on_done(effect, self._touch_disk(effect), self.now))

    def _touch_disk(self, effect: DiskEffect) -> Any:
        if isinstance(effect, ReadDisk) and isinstance(effect.question, messages.Read):
            limit = self.kernel.rng.choice([3, effect.question.limit])
            effect = ReadDisk(msgspec.structs.replace(effect.question, limit=limit), effect.askers)
        epochs = self.disk.epochs(effect)
        result = self.disk.perform(effect, self.runner.clock.at(self.now))
        if isinstance(effect, Append | Settle) and isinstance(result, list):
            for record, a in zip(effect.records, result, strict=True):
                if a.outcome == "stored":
                    self.on_append(record.stream, epochs[record.stream], a.offset, record.body.decode())
        return result


class JobNode(Driver):
    """Takes no time."""

    def boot(self) -> None:
        self.runner = JobRunner(COMETS)

    def receive(self, src: str, m: Any) -> None:
        self.perform(self.runner.on_messages([m], self.now))


class CometNode(Driver):
    """A pass takes its time, and anything may happen between two of its writes."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        super().__init__(kernel, name)
        self.disk = Disk()

    def boot(self) -> None:
        inc = self.disk.next_run("incarnation", 1)
        self.runner = CometRunner(self.name, inc, ROUTERS, LOGICS, MAX_BEHIND_BYTES // 4, 5.0)
        self.hub = self.runner.hub
        self.every(0.025, self._tick)

    def act(self, effects: Sequence[Effect]) -> None:
        """Does what a step of the runner wants; and begins a pass, if there is work and none is under way."""
        self.perform(effects)
        self.perform(self.hub.begin_pass(self.now))

    def look_at_links(self) -> None:
        for router in ROUTERS:
            self.runner.on_link(router, self.kernel.is_connected(self.name, router))

    def _tick(self) -> None:
        self.look_at_links()
        self.act(self.runner.on_tick(self.now))

    def receive(self, src: str, m: Any) -> None:
        self.look_at_links()
        self.act(self.runner.on_messages([m], self.now))

    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Pass():
                work = deque((write, session) for write in effect.writes for session in write.sessions)
                self.later(0, lambda: self._go_on(effect, work))
            case Replaced():
                raise Violation(f"{self.name} is fenced, yet it is the only one of its name")
            case SessionEffect():
                effect.session.perform(effect)  # type: ignore[attr-defined]
            case _:
                super().perform_one(effect)

    def _go_on(self, todo: Pass, work: deque[tuple[Write, Session]]) -> None:
        for _ in range(min(2, len(work))):
            write, session = work.popleft()
            if session.write(write.chunk, write.rows):
                for row in write.rows:
                    row.settle("delivered")
        if work:
            self.later(self.kernel.rng.choice([0, 0.001, 0.05]), lambda: self._go_on(todo, work))
        else:
            self.look_at_links()
            self.act(self.hub.end_pass(todo, self.now))


class LogicNode(Driver):
    """Takes no time."""

    def boot(self) -> None:
        self.runner = LogicRunner(ROUTERS, GoimTokens(), 1 << 20, lambda: f"id-{self.kernel.number()}")
        self.every(RETRY_S, lambda: self.perform(self.runner.on_tick(self.now)))

    def publish(self, push: Push, answered: Callable[[Published], None]) -> None:
        """Publishes, and tells the publisher, if this run lasts."""
        self.perform(self.runner.on_push(answered, [push], self.now))

    def perform_one(self, effect: Effect) -> None:
        if isinstance(effect, Settled):
            effect.ticket(*effect.outcome)
        else:
            super().perform_one(effect)

    def on_not_sent(self, message: Any) -> None:
        self.later(0, lambda: self.perform(self.runner.on_not_sent([message.req], self.now)))

    def receive(self, src: str, m: Any) -> None:
        self.perform(self.runner.on_answers(src, [m], self.now))

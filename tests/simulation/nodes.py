"""The four kinds of node in virtual time: zim's runners as they ship, the kernel's links, and disks that take time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tests.simulation.application import desk
from tests.simulation.disk import WALL_S, Disk, ShardDisk, is_live
from tests.simulation.kernel import Driver, Violation
from zim.fabric.principals import LOCAL
from zim.fabric.push import Published, Push
from zim.nodes.comet.effects import Pass, SessionEffect, Write
from zim.nodes.comet.runner import CometRunner
from zim.nodes.comet.views import Session
from zim.nodes.effects import Effect, Replies
from zim.nodes.job.runner import JobRunner
from zim.nodes.logic.runner import LogicRunner
from zim.nodes.placement import Placement
from zim.nodes.router.effects import (
    AtShard,
    CloseShard,
    DiskEffect,
    Enter,
    ForgetIdle,
    Opened,
    OpenShard,
    OwnerEffect,
)
from zim.nodes.router.log import Fenced, Lease, unavailable
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.owning import Owning
from zim.nodes.router.runner import RouterRunner
from zim.nodes.router.shard_runner import ShardRunner
from zim.protocol.messages import FromLogic, Moved, PublishReply, Submit, ToLogic

TICK_S = 0.05  # of a logic; the real one asks again a little sooner


class RouterNode(Driver):
    """A router, with its own shard on a disk of its own, or with some of a shared log.

    Attributes:
        disks: the shards that are open.
        clock_off_s: of its wall clock, at the next start.
        silent_at: when it was last past its deadline.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.disks: dict[str, ShardDisk] = {}
        self.folder = Disk()
        self.clock_off_s = 0.0
        self.silent_at = 0.0

    @property
    def wall_s(self) -> float:
        """The wall clock of its machine."""
        return WALL_S + self.kernel.now + self.clock_off_s

    @property
    def shards(self) -> list[ShardRunner[Any]]:
        """The shards for which it speaks."""
        found = self.runner.shards.items() if self.is_up else ()
        return [runner for shard, runner in found if self.runner.speaks_for(shard, self.now)]

    @property
    def may_speak(self) -> bool:
        """It is not past its deadline."""
        owning = self.runner.owning
        return owning is None or owning.may_speak(self.now)

    def boot(self) -> None:
        name, engine = self.name, self.kernel.engine
        if engine is not None:
            clock, owning = LogClock(0, self.wall_s, self.now), Owning(name, self.folder.read("run"), self.now)
            self.runner = RouterRunner(name, self._make, clock, owning)
        else:
            disk = self.disks[name] = ShardDisk(self, self.kernel.vaults[name], lambda: True)
            clock = LogClock(disk.log.last_time_ms, self.wall_s, self.now)
            self.runner = RouterRunner(name, self._make, clock)
            self.perform(self.runner.on_opened(disk.opened(clock), self.now))
        self.every(0.1, self._tick)

    def _make(self, opened: Opened, now: float) -> ShardRunner[Any]:
        return self.disks[opened.lease.shard].make(opened, self.runner.clock, now)

    def _tick(self) -> None:
        if not self.may_speak:
            self.silent_at = self.kernel.now
        self.perform(self.runner.on_tick(self.now, self.wall_s))

    def crash(self) -> None:
        for disk in self.disks.values():
            disk.crash()
        self.disks.clear()

    def receive(self, src: str, run: int, m: Any) -> None:
        self.look_at(self.layout.jobs)
        disk = self.disks.get(getattr(m, "shard", ""))
        is_here = disk is not None and self.runner.speaks_for(disk.name, self.now)
        if disk is not None and is_here:
            disk.check_message(m)
        super().receive(src, run, m)
        if disk is not None and is_here:
            disk.check_behind(m)

    def perform_one(self, effect: Effect) -> None:
        match effect:
            case AtShard(lease=lease, effect=DiskEffect() as at_disk):
                self._ask_disk(lease, at_disk)
            case AtShard(lease=lease, effect=ForgetIdle(now=now, now_ms=now_ms, left=left)):
                disk = self.disks[lease.shard]
                disk.storage.streams.forget(now, now_ms, disk.shard.directory.is_served, left)
            case OpenShard(lease=lease):
                self.later(self.kernel.engine.delay_s(), lambda: self._open(effect))
            case CloseShard(lease=lease):
                if lease.shard in self.disks and self.disks[lease.shard].lease == lease:
                    self.disks.pop(lease.shard).crash()
            case OwnerEffect():
                self.kernel.engine.ask(self, effect, lambda result: self._heard(effect, result))
            case Replies(answers=answers):
                self._check_speech([m for _, m in answers])
                super().perform_one(effect)
            case _:
                super().perform_one(effect)

    def _check_speech(self, said: Sequence[Any]) -> None:
        """Past its deadline it tells what became of commits, and what is not here; nothing else."""
        state = [m for m in said if not isinstance(m, PublishReply | Moved)]
        if state and not self.may_speak:
            raise Violation(f"{self.name} is past its deadline, and says {state[0]}")

    def _ask_disk(self, lease: Lease, effect: DiskEffect) -> None:
        disk = self.disks.get(lease.shard)
        if disk is None or disk.lease != lease:
            self.later(0, lambda: self.perform(self.runner.on_done(lease, effect, unavailable("closed"), self.now)))
            return
        self.later(disk.begin(effect), lambda: self._end(disk, effect))

    def _end(self, disk: ShardDisk, effect: DiskEffect) -> None:
        if effect in disk.working:  # else it was closed, and that has said what became of it
            self.perform(self.runner.on_done(disk.lease, effect, disk.end(effect), self.now))

    def _open(self, effect: OpenShard) -> None:
        engine, lease = self.kernel.engine, effect.lease
        result: Any = unavailable("it is away")
        if not engine.is_away(self.name):
            try:
                speaks = partial(self._speaks_for, lease.shard)
                disk = ShardDisk(self, engine.vaults[lease.shard], speaks, lease)
                result = disk.opened(self.runner.clock)
                self.disks[lease.shard] = disk
            except Fenced as error:
                result = error
        self._heard(effect, result)

    def _speaks_for(self, shard: str) -> bool:
        return bool(self.runner.speaks_for(shard, self.now))

    def _heard(self, effect: OwnerEffect, result: Any) -> None:
        if isinstance(effect, Enter) and isinstance(result, int):
            self.folder.write("run", result)
        self.perform(self.runner.on_owner_done(effect, result, self.now))


class JobNode(Driver):
    def boot(self) -> None:
        self.runner = JobRunner(self.layout.comets)

    def receive(self, src: str, run: int, m: Any) -> None:
        self.perform(self.runner.on_messages([m], self.now))


class CometNode(Driver):
    """A pass takes its time, and anything may happen between two of its writes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.disk = Disk()

    def boot(self) -> None:
        placement = Placement(self.name, self.layout.routers, self.layout.shards.names)
        rest = placement, self.layout.logics, self.kernel.renew_bytes, 5.0, 0, self.kernel.most_changes
        self.runner = CometRunner(self.name, self.disk.next_run("incarnation", 1), *rest)
        self.hub = self.runner.hub
        self.every(0.025, lambda: self.act(self.runner.on_tick, self.now))

    def act(self, step: Callable[..., list[Effect]], *args: Any) -> None:
        """A step of the runner; and a pass, if there is work and none is under way."""
        self.look_at(self.layout.routers)
        self.perform(step(*args))
        self.perform(self.hub.begin_pass(self.now))

    def receive(self, src: str, run: int, m: Any) -> None:
        self.act(self.runner.on_told if isinstance(m, FromLogic) else self.runner.on_messages, [m], self.now)

    def perform_one(self, effect: Effect) -> None:
        match effect:
            case SessionEffect(session=wire):
                wire.perform(effect)  # type: ignore[attr-defined]
            case Pass(writes=writes):
                self.later(0, lambda: self._go_on(effect, deque((w, s) for w in writes for s in w.sessions)))
            case _:
                super().perform_one(effect)

    def _go_on(self, todo: Pass, work: deque[tuple[Write, Session]]) -> None:
        for _ in range(min(2, len(work))):
            write, session = work.popleft()
            is_late = write.is_late(self.now)
            if is_late or session.write(write.chunk, write.rows, write.until):
                for row in write.rows:
                    row.settle("expired" if is_late else "delivered")
        if work:
            self.later(self.kernel.rng.choice([0, 0.001, 0.05]), lambda: self._go_on(todo, work))
        else:
            self.act(self.hub.end_pass, todo, self.now)


class LogicNode(Driver):
    def boot(self) -> None:
        rest = desk(), 1 << 20, lambda: f"id-{self.kernel.number()}", self.kernel.part_streams
        placement = Placement(self.name, self.layout.routers, self.layout.shards.names)
        self.runner = LogicRunner(placement, is_live, *rest)
        self.there.clear()
        self.every(TICK_S, lambda: self.perform([*self.follow(self.layout.routers), *self.runner.on_tick(self.now)]))

    def publish(self, push: Push, answered: Callable[[Published], None]) -> None:
        """Publishes, and tells the publisher, if this run lasts."""
        self.perform(self.runner.on_push(lambda found: answered(*found), [push], LOCAL, self.now, self.kernel.pause))

    def receive(self, src: str, run: int, m: Any) -> None:
        if isinstance(m, Submit):
            self.perform(self.runner.on_submits((src, run), [m], LOCAL, self.now, self.kernel.pause))
        elif isinstance(m, ToLogic):
            self.perform(self.runner.on_messages((src, run), [m], self.now, self.now))
        else:
            self.perform(self.runner.on_answers(src, [m], self.now))

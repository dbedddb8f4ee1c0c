"""A router in virtual time: zim's runner as it ships, with its own shard on a disk, or some of a shared log."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from tests.simulation.disk import WALL_S, Disk, ShardDisk
from tests.simulation.kernel import Driver, Violation
from zim.nodes.effects import Effect, Replies
from zim.nodes.router.effects import (
    AtShard,
    CloseShard,
    DiskEffect,
    Enter,
    ForgetIdle,
    OpenShard,
    OwnerEffect,
    ShardOpened,
)
from zim.nodes.router.log import Fenced, Lease, unavailable
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.owning import Owning
from zim.nodes.router.runner import RouterRunner
from zim.nodes.router.shard_runner import ShardRunner
from zim.protocol.messages import PublishReply
from zim.protocol.placing import Moved


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
            clock, owning = (
                LogClock(0, self.wall_s, self.now),
                Owning(name, self.layout.routers, self.folder.read("run"), self.now),
            )
            self.runner = RouterRunner(name, self._make, clock, owning)
        else:
            disk = self.disks[name] = ShardDisk(self, self.kernel.vaults[name], lambda: True)
            clock = LogClock(disk.log.last_time_ms, self.wall_s, self.now)
            self.runner = RouterRunner(name, self._make, clock)
            self.perform(self.runner.on_opened(disk.opened(), self.now))
        self.every(0.1, self._tick)

    def _make(self, opened: ShardOpened, clock: LogClock, now: float) -> ShardRunner[Any]:
        return self.disks[opened.lease.shard].make(opened, clock, now)

    def reload(self) -> None:
        super().reload()
        for runner in self.runner.shards.values():
            runner.know(self.layout.comets, self.layout.jobs)

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
                result = disk.opened()
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

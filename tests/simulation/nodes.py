"""The four kinds of node in virtual time: zim's runners as they ship, the kernel's links, and disks that take time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from tests.simulation.application import desk
from tests.simulation.disk import Disk, is_live
from tests.simulation.kernel import Driver
from zim.fabric.principals import LOCAL
from zim.fabric.push import Published, Push
from zim.nodes.comet.draining import DrainPlan
from zim.nodes.comet.effects import Pass, SessionEffect, Write
from zim.nodes.comet.runner import CometRunner
from zim.nodes.comet.views import Session
from zim.nodes.effects import Drained, Effect, Note
from zim.nodes.job.runner import JobRunner
from zim.nodes.logic.runner import LogicRunner
from zim.nodes.placement import Placement
from zim.protocol.messages import FromLogic, Submit, ToLogic

TICK_S = 0.05  # of a logic; the real one asks again a little sooner


class JobNode(Driver):
    def boot(self) -> None:
        self.comets = list(self.layout.comets)
        self.runner = JobRunner(self.comets)

    def reload(self) -> None:
        super().reload()
        self.comets[:] = self.layout.comets

    def receive(self, src: str, run: int, m: Any) -> None:
        self.perform(self.runner.on_messages([m], self.now))


class CometNode(Driver):
    """A pass takes its time, and anything may happen between two of its writes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.disk = Disk()
        self.on_drained: Callable[[CometNode, bool], None] = lambda node, is_late: None
        self.away_s = 0.0  # after a drain
        self._is_late = False

    @property
    def is_leaving(self) -> bool:
        """It is being drained, and lets nobody in."""
        return self.runner.draining is not None

    def drain(self, per_s: float, shares: Mapping[str, float], away_s: float) -> None:
        """It sends its clients to others, ends, and is back so much later."""
        self.away_s = away_s
        self.act(self.runner.drain, DrainPlan(per_s, shares), self.now)

    def boot(self) -> None:
        self._is_late = False
        placement = Placement(self.name, self.layout.routers, self.layout.shards.names)
        rest = placement, self.layout.logics, self.kernel.renew_bytes, 5.0, 0, self.kernel.most_changes
        self.runner = CometRunner(self.name, self.disk.next_run("incarnation", 1), *rest)
        self.hub = self.runner.hub
        self.every(0.025, lambda: self.act(self.runner.on_tick, self.now))

    def reload(self) -> None:
        super().reload()
        self.runner.know(self.layout.routers, self.layout.logics, self.kernel.renew_bytes)

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
            case Drained():
                self.on_drained(self, self._is_late)
            case Note(event="drained, and not all is reported"):
                self._is_late = True
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

    def reload(self) -> None:
        super().reload()
        self.runner.know(self.layout.routers)

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

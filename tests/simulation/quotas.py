"""What the profile `limits` allows, and an observer of who gets how much."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.nodes import LogicNode
from zim.fabric.buckets import Rate
from zim.fabric.ceilings import Ceilings
from zim.nodes.router.log import NewPush

if TYPE_CHECKING:
    from tests.simulation.world import World

TIGHT = Ceilings(pushes_per_stream=Rate(3.0, 4.0), pushes_per_key=Rate(8.0, 12.0))
NEAR = 0.003  # log time is in milliseconds; and what is left of rounding


class WatchedLogic(LogicNode):
    """A logic with quotas, which tells what it lets through."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.on_let_through: Callable[[LogicNode], None] = lambda node: None

    def boot(self) -> None:
        super().boot()
        runner = self.runner
        self._follow_limits()
        runner.on_push, runner.on_submits = self._watched(runner.on_push), self._watched(runner.on_submits)

    def reload(self) -> None:
        super().reload()
        self._follow_limits()

    def _follow_limits(self) -> None:
        self.runner.quotas.follow(self.kernel.limits, (), len(self.layout.logics))

    def _watched(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step of the runner for one push, which is one too many or is not."""

        def watched(*args: Any) -> Any:
            by_limit = self.runner.quotas.refusals.by_limit
            before = dict(by_limit)
            out = step(*args)
            if by_limit == before:
                self.on_let_through(self)
            return out

        return watched


class Observer:
    """Of the limits of one world. A run of a node begins with full buckets."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._of: dict[tuple[str, int, str], list[float]] = {}  # when something was let through, by whom and whose

    def saw_append(self, shard: str, stream: str, push: NewPush) -> None:
        """A shard has kept a push that its owner admitted at this log time."""
        limit, vault = self._world.kernel.limits.pushes_per_stream, self._world.vaults[shard]
        if limit is not None:
            self._let_through(shard, vault.store.term, stream, push.time_ms / 1000, limit)

    def saw_push(self, logic: LogicNode) -> None:
        """A logic has let a push of a backend through."""
        limit = self._world.kernel.limits.pushes_per_key
        if limit is not None:
            share = limit.shared_by(len(logic.layout.logics))
            self._let_through(logic.name, logic.run, "", logic.now, share)

    def _let_through(self, who: str, run: int, whose: str, at: float, limit: Rate) -> None:
        times = self._of.setdefault((who, run, whose), [])
        times.append(at)
        times.sort()  # a commit may end before one that was admitted earlier
        for i, first in enumerate(times):
            for n, last in enumerate(times[i:], 1):
                if n > limit.burst + limit.per_s * (last - first + NEAR) + NEAR:
                    self._world.fail(f"{who} lets {n} pushes through in {last - first:.3f} s: {whose or 'of a key'}")

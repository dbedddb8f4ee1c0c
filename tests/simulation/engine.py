"""A shared log's rows in virtual time, with the weather that a database has: it answers late, commits without telling,
is away, and comes back with another clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.simulation.disk import WALL_S, Vault
from zim.errors import Unknown
from zim.nodes.router.effects import BeatNow, Bury, Enter, Give, LeaveRows, LookAround, OwnerEffect, Take
from zim.nodes.router.log import Fenced, Lease, unavailable, unknown
from zim.nodes.router.log.shared import Beat, Holding, Rows

if TYPE_CHECKING:
    from tests.simulation.kernel import Kernel
    from tests.simulation.router import RouterNode

NOT_NOW_S = 0.3  # until somebody is told that it is away


class Engine:
    """The rows, and what each shard keeps.

    Attributes:
        vaults: by shard.
        out_until: it is away; cut_off: for some; slow_until: it takes its time.
        clock_s: how far its clock is off.
        termed_at: a shard got an owner then.
        on_term: is told of each new owner, and whether the one before gave the shard.
    """

    def __init__(self, kernel: Kernel, shards: Sequence[str]) -> None:
        self._kernel = kernel
        self.vaults = {shard: Vault(shard, kernel) for shard in shards}
        for vault in self.vaults.values():
            vault.engine = self
        self._beats: dict[str, Beat] = {}
        self.holdings = {shard: Holding(shard, "", 0, 0) for shard in shards}
        self.out_until = self.slow_until = self.clock_s = self.termed_at = 0.0
        self.cut_off: dict[str, float] = {}
        self.on_term: Callable[[str, bool], None] = lambda shard, was_given: None

    def is_away(self, router: str) -> bool:
        """That router does not reach it."""
        return self._kernel.now < max(self.out_until, self.cut_off.get(router, 0.0))

    def calm(self) -> None:
        """All is well from now on."""
        self.out_until = self.slow_until = 0.0
        self.cut_off.clear()

    def delay_s(self) -> float:
        """Of one word with it."""
        is_slow = self._kernel.now < self.slow_until
        return self._kernel.rng.choice([0.05, 0.3, 0.8] if is_slow else [0.0005, 0.001, 0.001, 0.005, 0.03])

    def ask(self, node: RouterNode, effect: OwnerEffect, answer: Callable[[Any], None]) -> None:
        """A word of a router to the rows. It may be obeyed, and the answer lost."""
        kernel, rng, run = self._kernel, self._kernel.rng, node.run
        is_away = self.is_away(node.name)
        is_untold = is_away and rng.random() < 0.3

        def tell(result: Any) -> None:
            if node.run == run:
                answer(result)

        if is_away and not is_untold:
            kernel.after(NOT_NOW_S, lambda: tell(unavailable("it is away")), node)
            return

        def obey() -> None:
            try:
                result = self._obey(node.name, effect)
            except Fenced as error:
                result = error
            if is_untold:
                result = unknown("the connection broke")
            kernel.after(self.delay_s(), lambda: tell(result), node)

        kernel.after(self.delay_s(), obey)

    def _obey(self, router: str, effect: OwnerEffect) -> Any:
        match effect:
            case LookAround():
                return self.standing()
            case Enter():
                return self._enter(router)
            case BeatNow(run=run, time_ms=time_ms, comets=comets):
                return self._beat(router, run, time_ms, comets)
            case Bury(beat=beat):
                row = self._beats[beat.router]
                if (row.run, row.number, row.is_dead) != (beat.run, beat.number, False):
                    return False
                self._beats[beat.router] = row._replace(is_dead=True)
                return True
            case Take(holding=holding, run=run):
                if self.holdings[holding.shard] != holding or not self._lives(router, run):
                    return None
                return self._own(holding.shard, router, run, False)
            case Give(lease=lease, router=to, run=run):
                if self.holdings[lease.shard].term != lease.term or not self._lives(to, run):
                    return None
                return self._own(lease.shard, to, run, True)
            case LeaveRows(run=run):
                if (row := self._beats[router]).run == run:
                    self._beats[router] = row._replace(is_dead=True)
                return None
        raise AssertionError(effect)

    def standing(self) -> Rows:
        """All rows."""
        return Rows(dict(self._beats), dict(self.holdings))

    def _enter(self, router: str) -> int:
        row = self._beats.get(router)
        run = row.run + 1 if row is not None else 1
        self._beats[router] = Beat(router, run, 0, row.time_ms if row is not None else 0, 0)
        return run

    def _beat(self, router: str, run: int, time_ms: int, comets: int) -> Rows:
        row = self._beats[router]
        if row.run != run or row.is_dead:
            raise Fenced(f"run {run} of {router} is dead")
        self._beats[router] = Beat(router, run, row.number + 1, max(time_ms, row.time_ms), comets)
        return self.standing()

    def _lives(self, router: str, run: int) -> bool:
        row = self._beats.get(router)
        return row is not None and row.run == run and not row.is_dead

    def _own(self, shard: str, router: str, run: int, was_given: bool) -> Lease:
        clock_ms = int((WALL_S + self._kernel.now + self.clock_s) * 1000)
        term = max(self.holdings[shard].term + 1, clock_ms)
        self.holdings[shard] = Holding(shard, router, run, term)
        lease = self.vaults[shard].store.take(shard, term)
        self.termed_at = self._kernel.now
        self.on_term(shard, was_given)
        return lease

    def fate(self, router: str) -> str:
        """What becomes of a commit that it asks for now; "" if all is well."""
        if not self.is_away(router):
            return ""
        return self._kernel.rng.choice(["unavailable", "unknown, stored", "unknown, lost", "unknown, late"])

    def check(self, router: str) -> None:
        """Raises: Unknown: it is away."""
        if self.is_away(router):
            raise Unknown("the log", "it is away")

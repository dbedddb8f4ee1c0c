"""Appends of all shards of a process, one commit at a time: at once when idle; what comes meanwhile goes together."""

from __future__ import annotations

from collections import deque

import gevent
from gevent.event import AsyncResult

from zim.errors import ZimError
from zim.nodes.router.log import Damaged, unavailable, unknown
from zim.nodes.router.log.postgresql.connecting import ServerLine
from zim.nodes.router.log.postgresql.writing import Outcome, ShardClaim, write

MOST_BYTES = 8 << 20  # of one statement, unless one batch alone has more
MOST_ROWS = 10_000


class Appender:
    """The appends of one process.

    Attributes:
        commits, claims: how many there were.
    """

    def __init__(self, line: ServerLine) -> None:
        self._line = line
        self._waiting: deque[tuple[ShardClaim, AsyncResult[Outcome]]] = deque()
        self._is_busy = False
        self.commits = self.claims = 0

    def append(self, claim: ShardClaim) -> Outcome:
        """Writes a batch. Switches: until it is on the standby. One at a time of each shard.

        Raises:
            Unavailable: surely nothing was written. Unknown: it cannot be told. Damaged: see Log.
        """
        if not self._is_busy:
            return self._write_alone(claim)
        result: AsyncResult[Outcome] = AsyncResult()
        self._waiting.append((claim, result))
        found = result.get()
        assert found is not None
        return found

    def _write_alone(self, claim: ShardClaim) -> Outcome:
        """Nothing else is under way: it needs no other greenlet."""
        self._is_busy = True
        try:
            said = self._line.write(lambda c: write(c, [claim]))
            self.commits, self.claims = self.commits + 1, self.claims + 1
            return said.get(claim.shard, "fenced")
        finally:
            if self._waiting:
                gevent.spawn(self._work)
            else:
                self._is_busy = False

    def _work(self) -> None:
        """All that wait. No caller does it: one that is killed would leave the others alone."""
        try:
            while self._waiting:
                self._write(self._take())
        finally:
            self._is_busy = False
            while self._waiting:  # this greenlet was killed
                self._waiting.popleft()[1].set_exception(unavailable("it is closed"))

    def _take(self) -> list[tuple[ShardClaim, AsyncResult[Outcome]]]:
        group = [self._waiting.popleft()]
        size, rows = group[0][0].plan.bytes, group[0][0].plan.size
        while self._waiting:
            plan = self._waiting[0][0].plan
            size, rows = size + plan.bytes, rows + plan.size
            if size > MOST_BYTES or rows > MOST_ROWS:
                break
            group.append(self._waiting.popleft())
        return group

    def _write(self, group: list[tuple[ShardClaim, AsyncResult[Outcome]]]) -> None:
        claims = [claim for claim, _ in group]
        try:
            said = self._line.write(lambda c: write(c, claims))
        except Damaged as e:
            if len(group) == 1:
                group[0][1].set_exception(e)
                return
            for one in group:  # only one of them may be at fault
                self._write([one])
            return
        except ZimError as e:
            for _, result in group:
                result.set_exception(e)
            return
        except BaseException as e:
            for _, result in group:
                result.set_exception(e if isinstance(e, Exception) else unknown("it was ended"))
            raise
        self.commits += 1
        self.claims += len(group)
        for claim, result in group:
            result.set(said.get(claim.shard, "fenced"))

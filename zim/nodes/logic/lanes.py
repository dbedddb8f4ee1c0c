"""A publisher's order: what it has sent to one shard, and what of that may go next. Pure.

A push waits for those before it that share a stream and are not over, unless one message carries both. What ended as
unknown may come later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from zim.fabric.limits import PUSHES
from zim.net.batches import CUT_BYTES
from zim.nodes.logic.shares import Share


class Lane:
    """The pushes of one publisher to one shard, in their order. All its work is linear in their streams.

    A push waits for the last one before it in each of its streams, and that for the one before. So one that is over
    stands in the way of others until all before it are over, too.
    """

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self._last: dict[str, Share] = {}  # by what it shares with others, the last one that they must wait for
        self._ready: deque[Share] = deque()  # nothing before them is left; some wait for the home of their key
        self._in_the_way = self._messages = 0

    def __bool__(self) -> bool:
        return self._in_the_way > 0

    def put(self, share: Share) -> None:
        """One more push."""
        self._in_the_way += 1
        last = self._last
        before = {last[what] for what in share.before if what in last}
        for other in before:
            other.after.append(share)
        share.waits_for = len(before)
        last.update(dict.fromkeys(share.before, share))
        if not before:
            self._ready.append(share)

    def next(self) -> list[Share]:
        """Pushes that go now, as one message; nothing if none may."""
        self._messages += 1
        found: list[Share] = []
        with_them: deque[Share] = deque()  # they may go because all before them is in this message
        size = 0
        while queue := with_them or self._ready:
            share = queue[0]
            if share.is_over or share.is_begun or not share.is_ready:
                queue.popleft()
                continue
            if found and (size + share.size > CUT_BYTES or len(found) >= PUSHES):
                break
            queue.popleft()
            share.is_begun = True
            found.append(share)
            size += share.size
            with_them += [other for other in share.after if other.is_free_in(self._messages)]
        return found

    def release(self, share: Share) -> None:
        """The home of its key has said yes."""
        if not share.waits_for:
            self._ready.append(share)

    def ended(self, share: Share) -> None:
        """A push is over, whether it went or not. To be told once."""
        share.has_ended = True
        gone = [] if share.waits_for else [share]
        while gone:
            share = gone.pop()
            self._in_the_way -= 1
            for what in share.before:
                if self._last.get(what) is share:
                    del self._last[what]
            after, share.after = share.after, []
            for other in after:
                other.waits_for -= 1
                if not other.waits_for:
                    (gone if other.has_ended else self._ready).append(other)


class Lanes:
    """All that one publisher has sent, by shard."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}

    def __bool__(self) -> bool:
        return any(self._lanes.values())

    def put(self, shares: Iterable[Share]) -> list[Lane]:
        """More pushes. Returns the lanes that they are in."""
        touched: dict[str, Lane] = {}
        for share in shares:
            lane = self._lanes.get(share.shard)
            if lane is None:
                lane = self._lanes[share.shard] = Lane(share.shard)
            share.lane = touched[share.shard] = lane
            lane.put(share)
        return list(touched.values())

"""A publisher's order: what it has sent to one router, and what of that may go next. Pure.

A push waits for those before it that share a stream and are not over, unless one message carries both. What ended as
unknown may come later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from zim.net.batches import CUT_BYTES
from zim.nodes.logic.shares import Share

LOOKS = 2_000  # streams of pushes that wait, looked at for the next message


class Lane:
    """The pushes of one publisher to one router, in their order."""

    def __init__(self, router: str) -> None:
        self.router = router
        self._waiting: deque[Share] = deque()
        self._busy: dict[str, int] = {}  # streams of pushes under way, and of how many

    def __bool__(self) -> bool:
        return bool(self._waiting or self._busy)

    def put(self, share: Share) -> None:
        """One more push."""
        self._waiting.append(share)

    def next(self) -> list[Share]:
        """Pushes that go now, as one message; nothing if none may."""
        waiting, busy = self._waiting, self._busy
        found: list[Share] = []
        stay: list[Share] = []
        blocked: set[str] = set()
        size = looked = 0
        while waiting and looked < LOOKS:
            share = waiting[0]
            if share.is_over:  # its key has another push, or its time was up
                waiting.popleft()
                continue
            streams = share.streams
            if not share.is_ready or not (blocked.isdisjoint(streams) and busy.keys().isdisjoint(streams)):
                blocked.update(streams)
                stay.append(waiting.popleft())
                looked += len(streams)
                continue
            if found and size + share.size > CUT_BYTES:
                break
            found.append(waiting.popleft())
            size += share.size
        waiting.extendleft(reversed(stay))
        for share in found:
            share.is_begun = True
            for stream in share.streams:
                busy[stream] = busy.get(stream, 0) + 1
        return found

    def ended(self, share: Share) -> None:
        """A push that went is over."""
        busy = self._busy
        for stream in share.streams:
            busy[stream] -= 1
            if not busy[stream]:
                del busy[stream]


class Lanes:
    """All that one publisher has sent, by router."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}

    def __bool__(self) -> bool:
        return any(self._lanes.values())

    def put(self, shares: Iterable[Share]) -> list[Lane]:
        """More pushes. Returns the lanes that they are in."""
        touched: dict[str, Lane] = {}
        for share in shares:
            lane = self._lanes.get(share.router)
            if lane is None:
                lane = self._lanes[share.router] = Lane(share.router)
            share.lane = touched[share.router] = lane
            lane.put(share)
        return list(touched.values())

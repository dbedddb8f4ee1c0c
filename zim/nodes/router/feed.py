"""Both feeds of one comet, as its router sees them: changes come up and are applied in order, entries go down and are
kept until the comet has handled them. Pure: no socket, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zim.nodes.router.receipts import PushRow
from zim.protocol.fields import Item
from zim.protocol.messages import Entry, Result, entry_bytes
from zim.protocol.orders import Order


@dataclass(slots=True)
class Registered:
    """One session in the directory. Its key is `uid_seq`."""

    conn: int
    uid: str
    seq: int
    rooms: tuple[str, ...]
    device: str = ""
    most: int = 0
    is_leaving: bool = False  # its comet has been ordered to close it

    @property
    def key(self) -> str:
        """What names it to people and backends."""
        return f"{self.uid}_{self.seq}"


@dataclass(slots=True)
class Body:
    """What all entries of one push share. time_ms: log time; expires_ms: log time, 0 for never; only: see Entry."""

    push_id: str
    op: int
    body: bytes
    time_ms: int
    expires_ms: int
    only: tuple[str, ...]


class Feed:
    """One run of a comet.

    Attributes:
        comet, inc: whose feed, and of which incarnation.
        begin, applied: the change that began the registration, and the last one applied.
        complete: the change that completes the registration.
        made: the last entry made. It goes on across registrations, so that a late entry is never taken for a new one.
        base: entries of this registration come after it.
        lease_end: monotonic; when the comet is given up unless it renews.
        is_alive: it has a lease.
        renewed: the number of the last Renew.
        behind_bytes: of entries that are made and not handled.
        admitted_bytes: of pushes that wait for their commit and will be entries here.
        sessions: by connection number.
        rooms: members by room.
        rows: of entries of which the comet has not yet said all, by number.
        orders: that the comet has not obeyed, oldest first; ordered: the number of the last one.
        peer: where its orders go; None before it has said anything.
        told: the last one that was sent; told_at: when some were sent last; monotonic.
    """

    __slots__ = (
        "_unhandled",
        "admitted_bytes",
        "applied",
        "base",
        "begin",
        "behind_bytes",
        "comet",
        "complete",
        "inc",
        "is_alive",
        "lease_end",
        "made",
        "ordered",
        "orders",
        "peer",
        "renewed",
        "roomless",
        "rooms",
        "rows",
        "sessions",
        "told",
        "told_at",
    )

    def __init__(self, comet: str, inc: int, begin: int, count: int, made: int, lease_end: float) -> None:
        self.comet, self.inc = comet, inc
        self.begin = self.applied = begin
        self.complete = begin + count
        self.made = self.base = made
        self.lease_end, self.is_alive, self.renewed = lease_end, True, 0
        self.behind_bytes = self.admitted_bytes = 0
        self.sessions: dict[int, Registered] = {}
        self.rooms: dict[str, int] = {}
        self.roomless = 0
        self.rows: dict[int, PushRow] = {}
        self.orders: deque[Order] = deque()
        self.ordered = 0
        self.peer: Any = None
        self.told, self.told_at = 0, 0.0
        self._unhandled: deque[tuple[Body, list[Item], int]] = deque()  # entry `made` is the last one

    @property
    def is_registered(self) -> bool:
        """Everything that the comet had to tell has been applied."""
        return self.applied >= self.complete

    def enter(self, body: Body, items: list[Item]) -> int:
        """Makes the next entry; returns its number."""
        size = entry_bytes(body.body, items, body.only)
        self.made += 1
        self.behind_bytes += size
        self._unhandled.append((body, items, size))
        return self.made

    def handled(self, n: int) -> int:
        """The comet has handled all entries up to n; returns the bytes that this frees."""
        freed, unhandled = 0, self._unhandled
        while unhandled and self.made - len(unhandled) < n:
            freed += unhandled.popleft()[2]
        self.behind_bytes -= freed
        return freed

    def report(self, results: list[Result], now_ms: int) -> None:
        """What became of entries. Rows that are closed, and repeats for them, are passed over."""
        for result in results:
            row = self.rows.get(result.n)
            if row is not None and row.report(result, now_ms):
                del self.rows[result.n]

    def order(self, make: Callable[[int], Order]) -> None:
        """One more order. make: around its number."""
        self.ordered += 1
        self.orders.append(make(self.ordered))

    def obeyed(self, n: int) -> None:
        """The comet has obeyed all orders up to n."""
        while self.orders and self.orders[0].n <= n:
            self.orders.popleft()

    def due_orders(self, now: float, again_s: float, most: int) -> list[Order]:
        """Those to be sent now: what is new, or all that is not obeyed, if it has waited for so long."""
        if not self.orders:
            return []
        first = self.orders[0].n
        is_late = self.told >= first and now - self.told_at >= again_s
        start = first if is_late else max(first, self.told + 1)
        found = [self.orders[at - first] for at in range(start, min(start + most, self.ordered + 1))]
        if found:
            self.told, self.told_at = max(self.told, found[-1].n), now
        return found

    @property
    def oldest_ms(self) -> int | None:
        """Log time of the oldest entry that the comet has not handled."""
        return self._unhandled[0][0].time_ms if self._unhandled else None

    def page(self, router: str, low: int, high: int, max_bytes: int) -> list[Entry]:
        """The entries from low to high, as many as max_bytes hold; nothing if low is not kept."""
        first = self.made - len(self._unhandled) + 1
        found: list[Entry] = []
        size = 0
        if low < first:
            return found
        for n in range(low, min(high, self.made) + 1):
            body, items, entry_size = self._unhandled[n - first]
            size += entry_size
            if found and size > max_bytes:
                break
            found.append(
                Entry(
                    router,
                    self.comet,
                    self.inc,
                    self.begin,
                    n,
                    body.push_id,
                    body.op,
                    body.body,
                    items,
                    body.expires_ms,
                    body.only,
                )
            )
        return found

    def end(self) -> None:
        """No lease any more: its sessions and what it was owed are forgotten; the last number made stays, and so do
        orders: the comet may be cut off, and its clients still there."""
        self.is_alive = False
        for row in self.rows.values():
            row.lose()
        self.rows = {}
        self.sessions, self.rooms, self.roomless = {}, {}, 0
        self._unhandled.clear()
        self.behind_bytes = 0

"""Who must go, and why: bans, kicks, how many sessions a user may have; rooms that a backend moves users to. Pure.

What is decided becomes orders to comets. They are repeated until the comet has obeyed, and while it lives. A ban is on
the disk before anybody hears of it: whoever registers after a restart is looked at again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from zim.fabric.answers import KeptBan, KeptBans
from zim.fabric.bans import Ban, Banned
from zim.fabric.grants import ANY_NUMBER
from zim.fabric.limits import BANNED_NETWORKS, BANS, ORDERS
from zim.nodes.router.directory import Directory
from zim.nodes.router.feed import Feed, Registered
from zim.protocol.orders import Bar, Expel, Move, Orders, Unbar, Why

AGAIN_S = 0.5  # without an answer, until orders are sent again
SWAPS = 2  # sessions of a user that newer ones may replace within
HOLD_S = 60.0  # so many seconds: above it who comes is refused, else two devices would push each other out for ever
_NEVER_MS = 1 << 62
SWAPPED = 100_000  # users of whom that is remembered


class Control:
    """One router's.

    Attributes:
        policy: how many sessions a user may have.
        bans: all of them, by whom they are about.
        closed: how many sessions were ordered to close, by why.
        now_ms: log time, as it was told last.
    """

    def __init__(self, name: str, term: int, directory: Directory, keeps_networks: bool) -> None:
        """
        Args:
            name, term: the router's.
            keeps_networks: it owns everybody's stream, and so the bans of networks.
        """
        self._name, self._term, self._directory = name, term, directory
        self.policy = ANY_NUMBER
        self.bans: dict[Banned, Ban] = {}
        self.closed: dict[Why, int] = dict.fromkeys(("banned", "kicked", "sent away", "replaced", "too many"), 0)
        self._keeps_networks = keeps_networks
        self.now_ms = 0
        self._next_end_ms = 0
        self._swaps: OrderedDict[str, tuple[float, int]] = OrderedDict()  # by user: since when, and how many

    def load(self, bans: Iterable[Ban]) -> None:
        """Those that the log keeps."""
        self.bans = {ban.banned: ban for ban in bans}

    # -- who comes

    def look(self, now: float, now_ms: int) -> None:
        """At those who have come: nobody stays who is banned, nor more of a user's than may be. now_ms: log time."""
        self.now_ms = now_ms
        self._see_begun()
        came, self._directory.came = self._directory.came, []
        for feed, session, is_new in came:
            if feed.sessions.get(session.conn) is not session or session.is_leaving:
                continue
            if (ban := self._ban_of(session, now_ms)) is not None:
                self._close(feed, session, "banned", ban.reason)
            elif self.policy.per_user or self.policy.per_device or session.most:
                self._limit(session, is_new, now)

    def _ban_of(self, session: Registered, now_ms: int) -> Ban | None:
        bans = self.bans
        if not bans:
            return None
        for device in ("", session.device):
            ban = bans.get(Banned(session.uid, device))
            if ban is not None and not ban.has_ended(now_ms):
                return ban
        return None

    def _limit(self, session: Registered, is_new: bool, now: float) -> None:
        there = [found for found in self._directory.sessions_of(session.uid) if not found[1].is_leaving]
        there.sort(key=lambda found: found[1].seq)
        alike = [found for found in there if found[1].device == session.device]
        for most, some in ((session.most or self.policy.per_user, there), (self.policy.per_device, alike)):
            some = [found for found in some if not found[1].is_leaving]
            if most and len(some) > most:
                self._close_some(session, some, len(some) - most, is_new, now)

    def _close_some(
        self, session: Registered, there: Sequence[tuple[Feed, Registered]], count: int, is_new: bool, now: float
    ) -> None:
        """there: oldest first."""
        if self.policy.newest_wins and not (is_new and self._is_swapping(session.uid, now)):
            for feed, old in there[:count]:
                self._close(feed, old, "replaced", "")
        else:
            for feed, young in there[len(there) - count :]:
                self._close(feed, young, "too many", "")

    def _is_swapping(self, uid: str, now: float) -> bool:
        """Whether sessions of a user replace each other again and again; else this is one more time."""
        swaps = self._swaps
        while swaps and now - next(iter(swaps.values()))[0] > HOLD_S:
            swaps.popitem(last=False)
        since, count = swaps.get(uid, (now, 0))
        if count >= SWAPS:
            return True
        swaps[uid] = since, count + 1
        if len(swaps) > SWAPPED:
            swaps.popitem(last=False)
        return False

    # -- orders

    def _close(self, feed: Feed, session: Registered, why: Why, reason: str) -> None:
        session.is_leaving = True
        self.closed[why] += 1
        feed.order(lambda n: Expel(n, session.conn, why, reason))

    def kick(self, uid: str, device: str, seq: int, why: Why, reason: str) -> int:
        """Closes sessions of a user.

        Args:
            device: only those of this class; "" for all.
            seq: only the one of this number; 0 for all.

        Returns:
            How many.
        """
        return sum(
            self._kick(feed, session, why, reason)
            for feed, session in self._directory.sessions_of(uid)
            if (not device or session.device == device) and (not seq or session.seq == seq)
        )

    def kick_from(self, room: str, sessions: Iterable[tuple[Feed, Registered]], why: Why | None, reason: str) -> int:
        """Those of these who are in a room leave it, or the fabric. why: of the latter. Returns how many."""
        found = 0
        for feed, session in sessions:
            if room not in session.rooms or feed.sessions.get(session.conn) is not session:
                continue
            if why is not None:
                found += self._kick(feed, session, why, reason)
            else:
                found += 1
                self._move(feed, session.conn, (), (room,), reason)
        return found

    def _kick(self, feed: Feed, session: Registered, why: Why, reason: str) -> int:
        if session.is_leaving:
            return 0
        self._close(feed, session, why, reason)
        return 1

    def move(self, uid: str, join: Sequence[str], leave: Sequence[str], reason: str) -> int:
        """All sessions of a user join and leave rooms. Returns how many there are."""
        there = [found for found in self._directory.sessions_of(uid) if not found[1].is_leaving]
        for feed, session in there:
            self._move(feed, session.conn, tuple(join), tuple(leave), reason)
        return len(there)

    def _move(self, feed: Feed, conn: int, join: tuple[str, ...], leave: tuple[str, ...], reason: str) -> None:
        feed.order(lambda n: Move(n, conn, join, leave, reason))

    # -- bans

    def put(self, ban: Ban) -> int:
        """A ban that is on the disk is in force. Returns how many sessions it closes, as far as that is known here."""
        self.bans.pop(ban.banned, None)
        self.bans[ban.banned] = ban
        if ban.ends_ms:
            self._next_end_ms = min(self._next_end_ms, ban.ends_ms)
        banned = ban.banned
        if banned.user:
            return self.kick(banned.user, banned.device, 0, "banned", ban.reason)
        for feed in self._living():
            self._bar(feed, ban)
        return 0

    def has_room(self, banned: Banned) -> bool:
        """Whether one more can be kept."""
        if banned in self.bans:
            return True
        networks = sum(bool(known.network) for known in self.bans) if banned.network else 0
        return len(self.bans) < BANS and networks < BANNED_NETWORKS

    def list_bans(self, limit: int) -> KeptBans:
        """The newest."""
        newest = islice(reversed(self.bans.values()), limit)
        return KeptBans([kept_ban(ban, self.now_ms) for ban in newest], len(self.bans))

    def lift(self, banned: Banned) -> bool:
        """A ban that is off the disk is over. Returns whether there was one."""
        if self.bans.pop(banned, None) is None:
            return False
        if banned.network:
            for feed in self._living():
                self._unbar(feed, banned.network)
        return True

    def ended(self, now_ms: int, most: int) -> list[Banned]:
        """Whose ban is over by itself, at most so many."""
        if now_ms < self._next_end_ms:
            return []
        found = [banned for banned, ban in self.bans.items() if ban.has_ended(now_ms)]
        ends = [ban.ends_ms for ban in self.bans.values() if ban.ends_ms and not ban.has_ended(now_ms)]
        self._next_end_ms = now_ms if len(found) > most else min(ends, default=_NEVER_MS)
        return found[:most]

    def _see_begun(self) -> None:
        """Comets that begin a registration hear of everybody's owner which networks are banned, all anew."""
        begun, self._directory.begun = self._directory.begun, []
        for feed in begun if self._keeps_networks else ():
            self._unbar(feed, "")
            for ban in self.bans.values():
                if ban.banned.network:
                    self._bar(feed, ban)

    def _bar(self, feed: Feed, ban: Ban) -> None:
        feed.order(lambda n: Bar(n, ban.banned.network, ban.reason))

    def _unbar(self, feed: Feed, network: str) -> None:
        feed.order(lambda n: Unbar(n, network))

    def _living(self) -> list[Feed]:
        return [feed for feed in self._directory.feeds.values() if feed.is_alive]

    # -- to the comets

    def due(self, now: float) -> list[tuple[Any, Orders]]:
        """Orders that are to be sent now, and to whom: what is new, and what is not obeyed for too long."""
        return [
            (feed.peer, Orders(self._name, self._term, feed.inc, feed.begin, some))
            for feed in self._directory.feeds.values()
            if feed.orders
            and feed.is_alive
            and feed.peer is not None
            and (some := feed.due_orders(now, AGAIN_S, ORDERS))
        ]


def kept_ban(ban: Ban, now_ms: int, sessions: int = 0) -> KeptBan:
    """A ban as it is answered. sessions: that it has closed."""
    left_s = max(0, ban.ends_ms - now_ms) / 1000 if ban.ends_ms else None
    user, device, network = ban.banned.user, ban.banned.device, ban.banned.network
    return KeptBan(ban.made_ms, user, device, network, ban.reason, ban.by, left_s, sessions)

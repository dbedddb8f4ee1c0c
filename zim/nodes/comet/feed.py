"""Both feeds to one shard, as a comet sees them. Pure: no socket, no clock.

Changes go up and are repeated until answered, entries come down and are handed on in order.

All numbers are those of design and messages: changes are numbered by the comet in the owner's term, entries by the
owner in the comet's incarnation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from zim.fabric.limits import CHANGES, RESULTS
from zim.fabric.tally import REPORTED
from zim.nodes.comet.hearing import Hearing
from zim.nodes.comet.results import RENEWS, Reports
from zim.nodes.effects import MESSAGE_BYTES, WARNING, Effect, Note, Send
from zim.nodes.remote_clock import RemoteClock
from zim.protocol.message import Message
from zim.protocol.messages import (
    Answer,
    Answers,
    Begin,
    Change,
    Changes,
    Entry,
    Fetch,
    Fetched,
    Renew,
    Renewed,
    change_bytes,
    entry_bytes,
)
from zim.protocol.orders import Order, Orders

RENEW_S = 1.0
RESULTS_S = 0.1  # sooner, if there are results to tell: somebody may wait for them
RETRY_S = 0.5  # without an answer, until changes and fetches are sent again
QUIET_S = 0.05  # how long a hole may stand before it is fetched: what is about to arrive anyway must not be
WINDOW_BYTES = 1 << 20  # of changes under way
CHANGES_BYTES = 128 << 10  # of one message
MADE_AT_ONCE = 1_000  # changes that one step makes and sends: a few milliseconds
UNSENT = 100_000  # changes that wait; above it the router is to be told everything anew
HELD_BYTES = 8 << 20  # of entries that wait behind a hole, or for the pass that handles them


class Link:
    """The feeds of one shard.

    Attributes:
        shard: its name; clock: its log time.
        router: that owns it; "" if that is not known. least_term: what has a lower one is of an owner before it.
        term: of the owner that we know; 0 before we heard of one.
        begin: the change that began the registration.
        is_registering: from begin until all is answered; meanwhile no entry is handled.
        taken: the last entry handed to a pass.
        handled: the last entry whose pass is over; what Renew confirms.
        reports: what became of the entries of this registration.
        settled: sessions of all entries by what became of them; of those delivered, the ones that had to wait.
        entries, fetches, registrations: how many there were: entries handled, pages of them asked for.
        dropped: entries for which there was no room.
        is_connected: the router is there: what is sent may arrive.
        hearing: whether it answers.
        obeyed: the last order of this registration that was obeyed.
        heard: the last Renew that was answered; of this registration, or 0.
    """

    def __init__(self, shard: str, comet: str, inc: int, out: list[Effect], most_changes: int = CHANGES) -> None:
        """
        Args:
            out: takes messages for its router.
            most_changes: of one message; CHANGES at most.
        """
        self.shard, self._most_changes = shard, min(most_changes, CHANGES)
        self.router, self.least_term = "", 0
        self.clock = RemoteClock()
        self.is_connected = False
        self.hearing = Hearing()
        self._comet, self._inc, self._out = comet, inc, out
        self.obeyed = 0
        self._must_say = False  # that something was obeyed; or that somebody waits for an answer
        self.heard = self.term = self.begin = 0
        self.is_registering = False
        self.taken = self.handled = 0
        self.settled = dict.fromkeys(REPORTED, 0)
        self.entries = self.fetches = self.registrations = self.dropped = 0
        self.reports = Reports(self.settled)
        self._change = 0  # the last one made
        self._unanswered: dict[int, Change] = {}  # in the order in which they were sent last
        self._unanswered_bytes = 0
        self._most_unsent = UNSENT
        self._unsent: deque[tuple[int, Callable[[int], Change]]] = deque()  # by number, each to be made when it goes
        self._answered_at = 0.0
        self._answered_upto = 0  # the highest change that was
        self._overdue: tuple[int, float] = (0, 0.0)  # the change that was sent longest ago, and since when that is so
        self._registered_by = 0  # the last change of the registration
        self._unregistered = 0  # how many of them are not answered
        self._base = 0
        self._renew = self._renew_at_begin = 0
        self._renewed_at = -RENEW_S
        self._asked_at: dict[int, float] = {}  # of the last Renews, when they went
        self._freed_bytes = 0  # handled since the last Renew
        self._told = 0  # results that waited when it went
        self._made = 0  # the last entry that the router is known to have made
        self._held: dict[int, Entry] = {}
        self._held_bytes = 0
        self._hole: tuple[int, float] = (0, 0.0)  # the number that is missing, and since when
        self._fetched_at = -RETRY_S

    @property
    def held_bytes(self) -> int:
        """Of entries that wait behind a hole, or for their pass."""
        return self._held_bytes

    def moved(self, router: str, term: int, is_connected: bool) -> None:
        """Its owner is another, is not known any more, or has come or gone."""
        is_new = (router, term, is_connected) != (self.router, self.least_term, self.is_connected)
        self.router, self.least_term, self.is_connected = router, term, is_connected
        if is_new:
            self._renewed_at = -RENEW_S

    def _send(self, m: Message, size: int = MESSAGE_BYTES) -> bool:
        """Sends a message, or says that nobody is there. What is sent may get lost."""
        if self.is_connected:
            self._out.append(Send(self.router, m, size))
        return self.is_connected

    # -- changes

    def change(self, make: Callable[[int], Change], now: float) -> int:
        """Gives the next change its number; `flush` makes and sends it. Returns it; -1 before the first registration,
        which tells all."""
        if not self.term:
            return -1
        self._change += 1
        if not self._unanswered:
            self._answered_at = now
        self._unsent.append((self._change, make))
        if len(self._unsent) > self._most_unsent:
            self._give_up()
            return -1
        return self._change

    def _give_up(self) -> None:
        """The router is away for so long that it will have to be told everything anew."""
        self.term, self.is_registering = 0, False
        self._unanswered, self._unanswered_bytes, self._held, self._held_bytes = {}, 0, {}, 0
        self._unsent.clear()
        self.taken = self.handled = self._made = 0
        self.reports = Reports(self.settled)

    @property
    def is_behind(self) -> bool:
        """There are changes that its router was not sent."""
        return bool(self._unsent)

    def flush(self, most: int = MADE_AT_ONCE) -> None:
        """Makes and sends what is due, many at a time, until there were so many: of very much only some in one step."""
        made = 0
        while self._unsent and self._unanswered_bytes < WINDOW_BYTES and made < most:
            part: list[Change] = []
            size, most_changes = 0, min(self._most_changes, most - made)
            while self._unsent and len(part) < most_changes and (not part or size < CHANGES_BYTES):
                n, make = self._unsent.popleft()
                change = make(n)
                size += change_bytes(change)
                part.append(change)
            self._unanswered.update((c.n, c) for c in part)
            self._unanswered_bytes += size
            made += len(part)
            self._send(Changes(self.shard, self._comet, self._inc, self.term, part), size)

    def register(self, term: int, changes: Sequence[Callable[[int], Change]], now: float) -> Sequence[int]:
        """Tells a router everything anew. Until all is answered no entry is handled: one may be ahead of what an answer
        still has to say about its stream.

        Args:
            term: the router's.
            changes: all there is to tell.

        Returns:
            Their numbers.
        """
        self.term = term
        self._renew_at_begin, self.heard = self._renew, 0
        self.hearing.heard(self._renew, now)
        self._unanswered, self._unanswered_bytes, self._held, self._held_bytes = {}, 0, {}, 0
        self.registrations += 1
        self.reports = Reports(self.settled)  # the router has closed the old rows
        self._unsent.clear()
        self.is_registering = True
        self.taken = self.handled = self._made = 0  # else the next Renew would confirm entries unseen
        self._most_unsent = UNSENT + len(changes)
        self.begin, self.obeyed = self._change + 1, 0
        self._registered_by = self.begin + len(changes)
        self.change(lambda n: Begin(n, len(changes)), now)
        self._unsent.extend(enumerate(changes, self.begin + 1))
        self._change, self._unregistered = self._registered_by, 1 + len(changes)
        return range(self.begin + 1, self._registered_by + 1)

    def answers(self, m: Answers, now: float) -> list[tuple[Change, Answer]]:
        """The changes that are answered now for the first time, with their answers."""
        if m.term != self.term or m.inc != self._inc:
            return []
        found = []
        for answer in m.answers:
            change = self._unanswered.pop(answer.n, None)
            if change is None:
                continue
            self._unanswered_bytes -= change_bytes(change)
            self._answered_at, self._answered_upto = now, max(self._answered_upto, change.n)
            self._unregistered -= change.n <= self._registered_by
            if isinstance(change, Begin):
                self._base = answer.base
            found.append((change, answer))
        return found

    def _repeat_changes(self, now: float) -> None:
        """Those to which no answer comes: all of them if none comes at all; else those that others have overtaken, for
        a router answers in order."""
        first = next(iter(self._unanswered), 0)
        if first != self._overdue[0]:
            self._overdue = (first, now)
        if first and now - self._answered_at > RETRY_S:
            self._answered_at = now
            again = list(self._unanswered)
        elif 0 < first < self._answered_upto and now - self._overdue[1] > RETRY_S:
            again = [n for n in self._unanswered if n < self._answered_upto]
        else:
            return
        self._overdue = 0, now
        changes = [self._unanswered.pop(n) for n in sorted(again)]
        self._unanswered_bytes -= sum(map(change_bytes, changes))
        self._unsent.extendleft((c.n, lambda _, c=c: c) for c in reversed(changes))  # type: ignore[misc]

    def complete_registration(self) -> bool:
        """Whether the registration was under way and is over now: entries flow again, from its base on."""
        if not self.is_registering or self._unregistered:
            return False
        self.is_registering = False
        self.taken = self.handled = self._made = self._base
        return True

    @property
    def is_told(self) -> bool:
        """All changes are answered."""
        return not self._unanswered and not self._unsent

    @property
    def asked(self) -> int:
        """The last Renew that was sent."""
        return self._renew

    @property
    def made(self) -> int:
        """The last entry that the router is known to have made."""
        return self._made

    def hurry(self) -> None:
        """The next Renew is due soon: somebody waits for its answer."""
        self._must_say = True

    def is_settled(self, upto: int) -> bool:
        """The router has heard what became of all entries up to there."""
        return self.handled >= upto and all(n > upto for n in self.reports.waiting)

    # -- Renew

    def renewed(self, m: Renewed, now: float) -> bool:
        """Takes the answer to a Renew; returns whether we are to register with m.term."""
        if m.inc != self._inc or m.term < self.least_term:
            return False
        self.hearing.heard(m.n, now)
        if (asked_at := self._asked_at.pop(m.n, None)) is not None:
            self.clock.heard(m.term, asked_at, now, m.now_ms)
        self._change = max(self._change, m.applied)  # what somebody has said in our name: ours come after it
        if m.verdict == "register":
            return m.n > self._renew_at_begin or m.term > self.term
        if m.term == self.term and not self.is_registering and m.n > self._renew_at_begin:
            if m.begin != self.begin:  # a registration that was not ours: what we have told is forgotten there
                self._out.append(Note(WARNING, "somebody has registered as this comet", {"shard": self.shard}))
                return True
            self._made = max(self._made, m.made)
            self.heard = max(self.heard, m.n)
            self.reports.heard(m.n)
            self._told = 0
        return False

    def _send_renew(self, now: float) -> None:
        self._renew += 1
        results = [] if self.is_registering else self.reports.say(self._renew)
        rest = self.begin, self.obeyed
        renew = Renew(self.shard, self._comet, self._inc, self.term, self._renew, self.handled, results, *rest)
        self._must_say = False
        self._asked_at[self._renew] = now
        if len(self._asked_at) > RENEWS:
            del self._asked_at[next(iter(self._asked_at))]
        if self._send(renew, 64 + 32 * len(results)):
            self._renewed_at, self._freed_bytes, self._told = now, 0, len(self.reports.waiting)

    # -- orders

    def orders(self, m: Orders) -> list[Order]:
        """The orders that are to be obeyed now, each once and in order."""
        if m.term != self.term or (m.inc, m.begin) != (self._inc, self.begin):
            return []
        found = [order for order in m.orders if order.n > self.obeyed]
        if not found or found[0].n != self.obeyed + 1:
            return []
        self.obeyed, self._must_say = found[-1].n, True
        return found

    # -- entries

    def entry(self, e: Entry) -> None:
        """Takes an entry, unless it is a repeat, or of another run of either end."""
        # No two registrations of a run begin with one number. One that was given up is none: what its answers would
        # have said of the streams is not known.
        is_ours = self.term != 0 and (e.inc, e.begin) == (self._inc, self.begin)
        if not is_ours or self.is_registering or e.n <= self.taken:
            return
        self._made = max(self._made, e.n)
        size = entry_bytes(e.body, e.items, e.only)
        is_next = e.n == self.taken + 1
        if e.n in self._held:
            return
        if self._held_bytes + size > HELD_BYTES and not is_next:
            self.dropped += 1
            return  # full: it will be fetched when there is room
        self._held[e.n] = e
        self._held_bytes += size

    def fetched(self, m: Fetched) -> bool:
        """Takes a page of missing entries; returns whether we must register, for the router cannot fill the hole."""
        if m.term != self.term or self.is_registering:
            return False
        self._fetched_at = -RETRY_S
        for e in m.entries:
            self.entry(e)
        return not m.entries and m.low == self.taken + 1 and self._is_missing()

    def take(self, max_bytes: int) -> list[Entry]:
        """The next entries, in order, for a pass; as many as max_bytes hold, at least one if there is one."""
        found: list[Entry] = []
        size = 0
        while not self.is_registering and (e := self._held.get(self.taken + 1)) is not None:
            e_bytes = entry_bytes(e.body, e.items, e.only)
            if found and size + e_bytes > max_bytes:
                break
            size += e_bytes
            del self._held[e.n]
            self.taken = e.n
            found.append(e)
        self._held_bytes -= size
        return found

    def passed(self, entries: list[Entry]) -> None:
        """The pass that handled these entries is over."""
        self.handled = max(self.handled, entries[-1].n)
        self.entries += len(entries)
        self._freed_bytes += sum(entry_bytes(e.body, e.items, e.only) for e in entries)

    def _is_missing(self) -> bool:
        return self._made > self.taken and self.taken + 1 not in self._held and not self.is_registering

    def ask(self, m: Message) -> None:
        """Sends a question. Whoever asks it asks again if no answer comes."""
        self._send(m)

    # -- time

    def tick(self, now: float, renew_bytes: int) -> None:
        """Repeats what is not answered, fetches what is missing, renews.

        Args:
            renew_bytes: of handled entries, at which a Renew is due at once.
        """
        if self.term and self.hearing.changes(self._renew, now):
            self._out.append(self.hearing.note(self.shard, self.router))
        since = now - self._renewed_at
        fresh = len(self.reports.waiting) - self._told
        if (
            since >= RENEW_S
            or self._freed_bytes >= renew_bytes
            or fresh >= RESULTS // 2
            or ((fresh > 0 or self._must_say) and since >= RESULTS_S)
        ):
            self._send_renew(now)
        self._repeat_changes(now)
        if not self._is_missing():
            return
        low = self.taken + 1
        if self._hole[0] != low:  # not how long nothing came: on a busy feed that never happens
            self._hole = (low, now)
        elif now - self._hole[1] >= QUIET_S and now - self._fetched_at > RETRY_S:
            self._fetched_at = now
            self.fetches += 1
            high = min((n for n in self._held if n > low), default=self._made + 1) - 1
            self._send(Fetch(self.shard, self._comet, self._inc, self.term, low, high))

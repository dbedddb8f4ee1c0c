"""A comet without sockets: its hub, the routers it talks to, and guests who note what they get.

A router here is a real log in memory and nothing else: what it says to a comet is said when a test lets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.wires import ZIM_TCP, packets_in
from zim.fabric.audience import audiences
from zim.fabric.retention import Retention, Rule
from zim.fabric.sharding import Shards
from zim.fabric.streams import room_stream, user_stream
from zim.nodes.comet.effects import CursorMoved, Gapped, Joined, Left, Opened, Pass, Replaced, SessionEffect
from zim.nodes.comet.hub import Hub
from zim.nodes.comet.results import Row
from zim.nodes.comet.views import Session
from zim.nodes.effects import Effect, Note, Send
from zim.nodes.performer import Performer
from zim.nodes.placement import Placement
from zim.nodes.router.directory import stream_of
from zim.nodes.router.log import NewPush
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.log.memory_store import MemoryStore
from zim.protocol.message import Message
from zim.protocol.messages import (
    Acknowledge,
    Acknowledged,
    Answer,
    Answers,
    Begin,
    Changes,
    Entry,
    Fetch,
    Fetched,
    Put,
    Read,
    Records,
    Renew,
    Renewed,
    Result,
)
from zim.protocol.speech import Speech
from zim.protocol.vocabularies.base import Missed, Resume, Start

INC = 5
RENEW_BYTES = 1_000_000
PAGE_BYTES = 4_000  # of one answer to Read


class Guest(Session):
    """A session that notes what it gets.

    Attributes:
        got: in order: "opened", "joined 3", "left 4", "gap 1-2 trimmed", and bodies of pushes.
        starts: of its streams, as the last reply that named them said.
        gaps: that it was told of; kept: those in streams that are not live only.
        offsets: of the pushes, by stream, in the order in which they came.
        takes: "delivered", "later" or what becomes of the next pushes.
        reads: its socket takes more; fills: until the next push.
    """

    __slots__ = ("acknowledgements", "fills", "gaps", "got", "kept", "offsets", "reads", "rows", "starts", "takes")

    def __init__(self, conn: int, speech: Speech = ZIM_TCP) -> None:
        super().__init__(conn, speech)
        self.got: list[str] = []
        self.starts: dict[str, Start] = {}
        self.gaps: list[Missed] = []
        self.kept: list[Missed] = []
        self.offsets: dict[str, list[int]] = {}
        self.acknowledgements: list[tuple[str, int]] = []
        self.takes, self.reads, self.fills = "delivered", True, False
        self.rows: list[Row] = []

    @property
    def is_full(self) -> bool:
        return not self.reads

    def perform(self, effect: SessionEffect) -> None:
        """What zim.nodes.comet.edge does."""
        match effect:
            case Opened(starts=starts):
                self.got.append("opened")
                self._start(starts)
            case Joined(seq=seq, starts=starts):
                self.got.append(f"joined {seq}")
                self._start(starts)
            case Left(seq=seq, streams=streams):
                self.got.append(" ".join([f"left {seq}", *streams]))
            case Gapped(missed=missed, is_kept=is_kept):
                self.got.append(f"gap {missed.first}-{missed.last} {missed.reason}")
                self.gaps.append(missed)
                if is_kept:
                    self.kept.append(missed)
            case CursorMoved(stream=stream, offset=offset):
                self.acknowledgements.append((stream, offset))

    def _start(self, starts: Sequence[Start]) -> None:
        self.starts.update({start.stream: start for start in starts})

    def write(self, chunk: bytes, rows: Sequence[Row] = (), until: float = 0.0) -> bool:
        self.reads = self.reads and not self.fills
        for packet in packets_in(chunk):
            self.got.append(packet.body.decode())
            self.offsets.setdefault(packet.stream, []).append(packet.offset)
        if self.takes == "delivered":
            return True
        if self.takes == "later":
            self.rows += rows
        else:
            for row in rows:
                row.settle(self.takes)
        return False

    @property
    def bodies(self) -> list[str]:
        """Of all pushes so far."""
        return [what for what in self.got if not what.startswith(("opened", "joined", "left", "gap"))]


LOG_MS = 1_000_000  # log time at 0.0 of the comet's clock


class Router:
    """A log, and what a router tells one comet.

    Attributes:
        is_away: what is sent to it is lost.
        inbox: what the comet has said and nobody has answered.
        hears_results: its answers to Renew arrive.
        results: as the comet told them last, by entry.
        pipe: entries that have been made and not handed over.
        refuses: streams that are another's in its topology.
    """

    def __init__(self, name: str, epoch: str) -> None:
        self.name, self.term = name, 1
        self.is_away, self.hears_results = False, True
        self.inbox: list[Message] = []
        self.refuses: set[str] = set()
        self.results: dict[int, Result] = {}
        self.told: list[Result] = []
        self.pipe: list[Entry] = []
        self.n = self.begin = self.applied = 0
        self.clock: Callable[[], int] = lambda: 0
        self._seq = 0
        self._seqs: dict[int, int] = {}
        self.restart(epoch)

    def restart(self, epoch: str = "") -> None:
        """With an epoch, a log of its own; without one, live-only streams."""
        self.store = MemoryStore(epoch, term=self.term)
        self.log = MemoryLog(self.store, lambda: 0.0, lambda: 0.0)
        lease = self.log.acquire(self.name)
        self.lease = lease

    def append(self, stream: str, body: str, only: Sequence[str] = (), expires_ms: int = 0) -> int:
        """A push that goes into the log, and into no feed."""
        keys = {name: tuple(to.keys) for name, to in audiences(only).items()}
        push = NewPush("id", [stream], 5, body.encode(), 1, expires_ms, keys)
        return self.log.append(self.lease, [push])[0].offsets[0]

    def publish(self, *streams: str, body: str, only: tuple[str, ...] = (), expires_ms: int = 0) -> int:
        """A push. Its entry waits in the pipe; returns the entry's number."""
        items = [(stream, self.append(stream, body, only, expires_ms)) for stream in streams]
        self.n += 1
        number = self.name, "comet-1", INC, self.begin, self.n
        entry = Entry(*number, "id", 5, body.encode(), items, expires_ms, only)
        self.pipe.append(entry)
        return self.n

    def trim(self, count: int) -> None:
        """Keeps the newest records of each stream."""
        rule = Rule(count, 1e9)
        self.log.trim(self.lease, Retention(rule, rule, rule), 10, 10, 1_000_000)

    def answer(self, m: Message) -> Message | None:
        """To one message."""
        match m:
            case Changes():
                self.begin = max([self.begin, *(change.n for change in m.changes if isinstance(change, Begin))])
                return Answers(self.name, self.term, m.inc, [self._answer(change) for change in m.changes])
            case Renew():
                self.told = m.results
                self.results |= {r.n: r for r in m.results}
                if not self.hears_results:
                    return None
                verdict: Any = "ok" if m.term == self.term else "register"
                return Renewed(
                    self.name, self.term, m.inc, m.n, verdict, self.n, m.inc, self.begin, self.applied, self.clock()
                )
            case Read():
                p = self.log.read(m.stream, m.after, m.upto, m.limit, PAGE_BYTES, 0)
                return Records(m.req, self.name, m.stream, p.epoch, p.floor, p.head, p.records, p.last)
            case Acknowledge():
                offset = self.log.acknowledge(self.lease, {m.stream: m.offset})[m.stream]
                return Acknowledged(m.req, self.name, offset)
            case Fetch():
                return Fetched(self.name, self.term, m.low, [])
        raise AssertionError(m)

    def _answer(self, change: Any) -> Answer:
        if isinstance(change, Begin) or stream_of(change) in self.refuses:
            return Answer(change.n, self.n, "", 0, 0)
        if isinstance(change, Put):
            if change.conn not in self._seqs:
                self._seq += 1
                self._seqs[change.conn] = self._seq
            stream = user_stream(change.uid)
            head = self.log.heads([stream])[stream]
            cursor = self.log.acknowledged([stream])[stream]
            return Answer(change.n, self.n, head.epoch, head.head, self._seqs[change.conn], cursor)
        if hasattr(change, "room"):
            stream = room_stream(change.room)
            head = self.log.heads([stream])[stream]
            return Answer(change.n, self.n, head.epoch, head.head, 0)
        return Answer(change.n, self.n, "", 0, 0)


class Comet(Performer):
    """A hub that is registered, and time that stands still unless a test lets it pass.

    Attributes:
        replaced_by: a later run of it, that a router has named.
        notes: of the log.
    """

    def __init__(self, epoch: str = "a", routers: int = 1) -> None:
        names = [f"router-{i}" for i in range(1, routers + 1)]
        self.routers = {name: Router(name, epoch) for name in names}
        self.router = self.routers["router-1"]
        super().__init__()
        self.now = 0.0
        for router in self.routers.values():
            router.clock = lambda: LOG_MS + int(self.now * 1000)
        self.hub = Hub("comet-1", INC, Placement("comet-1", names, names))
        for link in self.hub.links.values():
            link.is_connected = True
        self.replaced_by = 0
        self.notes: list[str] = []
        self._todo: Pass | None = None
        self._conns = 0
        self._owner = Shards(names).of
        self.tick(0.0)

    def do(self, effects: Sequence[Effect]) -> None:
        """What a step of the hub wants."""
        self.perform(effects)

    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Send(peer=router, message=message):
                if not self.routers[router].is_away:
                    self.routers[router].inbox.append(message)
            case SessionEffect(session=Guest() as guest):
                guest.perform(effect)
            case Pass():
                self._todo = effect
            case Replaced(known_inc=known_inc):
                self.replaced_by = known_inc
            case Note(event=event):
                self.notes.append(event)
            case _:
                raise AssertionError(effect)

    def owner(self, stream: str) -> Router:
        """The router of a stream."""
        return self.routers[self._owner(stream)]

    def guest(self, speech: Speech = ZIM_TCP) -> Guest:
        """A connection that has not said who it is."""
        self._conns += 1
        return Guest(self._conns, speech)

    def enter(
        self,
        uid: str = "3",
        rooms: Sequence[str] = (),
        resume: Resume | None = None,
        speech: Speech = ZIM_TCP,
    ) -> Guest:
        """A guest whose auth reply has come."""
        guest = self.guest(speech)
        self.do(self.hub.join(guest, uid, rooms, self.now, resume))
        self.settle()
        assert guest.is_open
        return guest

    def hear(self) -> None:
        """Routers answer what they have been told."""
        while any(router.inbox for router in self.routers.values()):
            for router in self.routers.values():
                inbox, router.inbox = router.inbox, []
                for m in inbox:
                    self._take(router.answer(m))

    def _take(self, m: Any) -> None:
        if m is not None:
            self.do(self.hub.on_message(m, self.now))

    def receive(self) -> None:
        """Entries arrive."""
        for router in self.routers.values():
            pipe, router.pipe = router.pipe, []
            for entry in pipe:
                self.do(self.hub.on_message(entry, self.now))

    def _next_pass(self) -> Pass | None:
        self._todo = None
        self.do(self.hub.begin_pass(self.now))
        return self._todo

    def begin_pass(self) -> Pass:
        """The snapshot is taken, and nothing sent yet."""
        todo = self._next_pass()
        assert todo is not None
        return todo

    def end_pass(self, todo: Pass) -> None:
        """As zim.nodes.comet.node performs it."""
        for write in todo.writes:
            delivered = sum([session.write(write.chunk, write.rows, write.until) for session in write.sessions])
            for row in write.rows:
                row.delivered += delivered
                row.changed()
        self.do(self.hub.end_pass(todo, self.now))

    def run(self) -> None:
        """All passes that there are."""
        while todo := self._next_pass():
            self.end_pass(todo)

    def settle(self) -> None:
        """Everything that is under way arrives, is answered and goes out."""
        while True:
            self.receive()
            self.run()
            if not any(router.inbox for router in self.routers.values()):
                return
            self.hear()

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.do(self.hub.on_tick(self.now, RENEW_BYTES))
        self.settle()

    def restart_router(self, router: Router, epoch: str = "") -> None:
        """A new run of it: with another log if there is an epoch, or if it is live only; else with the same."""
        router.term += 1
        if epoch or not router.store.epoch:
            router.restart(epoch)
        router.pipe, router.n = [], 0

    def push(self, *streams: str, body: str, only: tuple[str, ...] = (), expires_ms: int = 0) -> int:
        """A push whose entry arrives and goes out."""
        n = self.owner(streams[0]).publish(*streams, body=body, only=only, expires_ms=expires_ms)
        self.receive()
        self.run()
        return n


def with_history(count: int, stream: str = "r:9") -> tuple[Comet, Guest]:
    """A comet that serves a stream with so many messages, "1" to count; and who is there already."""
    comet = Comet()
    first = comet.enter("1", ["9"])
    for n in range(1, count + 1):
        comet.push(stream, body=str(n))
    return comet, first


def numbers(first: int, last: int) -> list[str]:
    """Bodies of a history."""
    return [str(n) for n in range(first, last + 1)]

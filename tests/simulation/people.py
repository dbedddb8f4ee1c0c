"""Clients, who check whatever reaches them."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.simulation.kernel import Violation
from tests.simulation.nodes import CometNode
from tests.wires import GOIM_TCP, ZIM_TCP, packets_in
from zim.fabric.push import Push
from zim.fabric.streams import user_of_key, user_stream
from zim.nodes.comet.effects import (
    CursorMoved,
    Expelled,
    Gapped,
    HistoryRead,
    Joined,
    Left,
    Opened,
    SendOn,
    SessionEffect,
)
from zim.nodes.comet.outbox import Outbox
from zim.nodes.comet.results import Row
from zim.nodes.comet.views import Session
from zim.nodes.effects import Effect
from zim.protocol.frame import VERSION, Op, Packet
from zim.protocol.logins import Auth, Authed
from zim.protocol.vocabularies.base import Missed, ReadHistory, Start
from zim.protocol.vocabularies.zim import ZIM

if TYPE_CHECKING:
    from tests.simulation.world import World

OUTBOX_BYTES = 4_000


class Wire(Session):
    """A client's connection, as its comet sees it: bytes go in here, and come out at the person."""

    __slots__ = ("comet", "drops_oldest", "has_dropped", "is_closed", "outbox", "person", "reads")

    def __init__(self, person: Person, conn: int, comet: CometNode) -> None:
        super().__init__(conn, ZIM_TCP if person.is_zim else GOIM_TCP)
        self.person, self.comet = person, comet
        self.is_closed, self.reads = False, True
        self.drops_oldest = person.world.drops_oldest and not person.is_zim
        self.has_dropped = False
        self.outbox: Outbox | None = None

    @property
    def is_full(self) -> bool:
        return self.outbox is not None or not self.reads

    def write(self, chunk: bytes, rows: Sequence[Row] = (), until: float = 0.0) -> bool:
        if self.is_closed:
            for row in rows:
                row.settle("gone")
            return False
        if self.outbox is None and self.reads:
            self.person.receive(self, chunk)
            return True
        if self.outbox is None:
            self.outbox = Outbox(OUTBOX_BYTES)
            self.outbox.begin(chunk, 0, rows, until)
        elif self.outbox.put(chunk, rows, until):
            pass
        elif self.drops_oldest:
            self.outbox.put_newest(chunk, rows, until)
            self.has_dropped = True
        else:
            for row in rows:
                row.settle("shed")
            self.close("slow consumer", "shed")
        return False

    def drain(self) -> None:
        """The client reads again."""
        self.reads = True
        outbox = self.outbox
        while outbox and not self.is_closed and (chunks := outbox.head(self.comet.now)):
            outbox.sent(len(chunks[0]))
            self.person.receive(self, chunks[0])
        self.outbox = None

    def close(self, reason: str, outcome: str = "gone") -> None:
        """From the comet's side."""
        if not self.is_closed:
            self.hang_up(outcome)
            self.person.closed(self, reason)

    def hang_up(self, outcome: str = "gone") -> None:
        """The connection is over."""
        self.is_closed = True
        if self.outbox is not None:
            self.outbox.abandon(outcome)
        self.comet.act(self.comet.hub.leave, self, self.comet.now)

    def ask(self, step: Callable[..., list[Effect]], *args: Any) -> None:
        """Its client wants something. Who wants to be in very many rooms asks for some at a time."""
        comet, hub = self.comet, self.comet.hub

        def go_on() -> None:
            if hub.is_joining(self):
                self.ask(hub.go_on_joining, comet.now)

        comet.act(step, self, *args)
        comet.later(0, go_on)

    def _tell(self, op: int, body: bytes, seq: int = 0) -> None:
        self.write(self.speech.framing.encode(Packet(op, seq, VERSION, body)))

    def perform(self, effect: SessionEffect) -> None:
        """What zim.nodes.comet.edge does."""
        match effect:
            case Opened(starts=starts):
                self._tell(Op.AUTH_REPLY, json.dumps([tuple(s) for s in starts]).encode())
            case Joined(starts=starts):
                self._tell(Op.JOINED, json.dumps([tuple(s) for s in starts]).encode())
            case Left(streams=streams):
                self.write(self.speech.framing.encode(ZIM.encode_left(0, streams)))
            case Expelled(why=why):
                self.close(why)
            case SendOn(to=to):
                self.person.sent_to = to
                self.close("drained")
            case Gapped(missed=missed, is_kept=is_kept):
                self._miss(missed, is_kept)
            case HistoryRead(seq=seq, past=past):
                self.write(self.speech.framing.encode(ZIM.encode_history(seq, past)))
            case CursorMoved(stream=stream, offset=offset):
                self.write(self.speech.framing.encode(ZIM.encode_acknowledged(0, stream, offset)))

    def _miss(self, missed: Missed, is_kept: bool) -> None:
        self.person.world.saw_gap(self, missed)
        if self.person.is_zim:
            self._tell(Op.GAP, json.dumps(tuple(missed)).encode())
        elif is_kept:
            self.close("gap")


class Person:
    """A user's device. With zim's dialect it keeps what it has and resumes with it; with goim's it starts fresh.

    Attributes:
        have: by stream, epoch and offset; of goim's dialect as the checker knows it.
        got: by stream, what came on this connection.
    """

    def __init__(self, world: World, name: str, uid: str, rooms: list[str], is_zim: bool) -> None:
        self.world, self.name, self.uid, self.rooms, self.is_zim = world, name, uid, rooms, is_zim
        self.have: dict[str, tuple[str, int]] = {}
        self.got: dict[str, list[str]] = {}
        self.since: dict[str, float] = {}  # goim: when it joined each stream, on this connection
        self.wire: Wire | None = None
        self.is_ready = False
        self.leaving = ""
        self.is_amnesic = False
        self.acknowledged = 0
        self.sent_to = ""  # a comet, by one that is drained

    @property
    def streams(self) -> list[str]:
        """All that it wants."""
        return [user_stream(self.uid), *(f"r:{room}" for room in self.rooms), "*"]

    def is_meant(self, push: Push, stream: str) -> bool:
        """A push in a stream is for its session, too."""
        keys = [key for key in push.only if user_stream(user_of_key(key)) == stream]
        return not keys or self.key in keys

    @property
    def key(self) -> str:
        """Of its session; one that no session has while it has none."""
        return self.wire.key if self.wire is not None and self.is_ready else f"{self.uid}_{1 << 50}"

    # -- connecting

    def connect(self) -> None:
        """Comes to some comet that is up."""
        if self.wire is not None:
            return
        comets = self.world.comets_up()
        if not comets:
            self.world.kernel.after(0.3, self.connect)
            return
        named = [comet for comet in comets if comet.name == self.sent_to and self.is_zim]
        comet = self.world.kernel.rng.choice(named or comets)
        self.sent_to = ""
        if not self.is_zim:
            self.have = {}
        self.got, self.since, self.is_ready = {}, {}, False
        wire = self.wire = Wire(self, self.world.kernel.number(), comet)
        resume = dict(self.have) if self.is_zim else None

        def show_token() -> None:
            auth = Auth(0, self.uid.encode(), VERSION if self.is_zim else 1)
            comet.act(comet.runner.on_question, join, auth, comet.now)

        def join(who: Authed | None) -> None:
            if comet.is_leaving and not wire.is_closed:
                wire.close("drained")
            if who is not None and who.grant is not None and not wire.is_closed:
                wire.ask(comet.hub.join, who.grant.user, self.rooms, comet.now, resume)

        def give_up() -> None:
            if self.wire is wire and not self.is_ready:
                self.move()

        comet.later(0.001, show_token)
        self.world.kernel.after(4.0, give_up)

    def move(self) -> None:
        """Leaves, and comes back elsewhere."""
        wire, self.wire, self.is_ready, self.leaving = self.wire, None, False, ""
        if wire is not None and not wire.is_closed:
            if wire.comet.is_up and not wire.comet.is_stopped:
                wire.hang_up()
            else:
                wire.is_closed = True
                wire.comet.later(0, wire.hang_up)
        self.world.kernel.after(self.world.kernel.rng.choice([0.01, 0.1, 0.7]), self.connect)

    def closed(self, wire: Wire, reason: str) -> None:
        """Its comet has closed it, or died."""
        wire.is_closed = True
        if self.wire is wire:
            self.wire, self.is_ready, self.leaving = None, False, ""
            if reason != "banned" or not self.world.settled_at:  # in the end it does as it is told
                self.world.kernel.after(0.3, self.connect)

    def forget(self) -> None:
        """A new phone: it has nothing, and comes back."""
        if self.is_zim:
            self.have, self.is_amnesic = {}, True
            self.move()

    def hop(self, room: str) -> None:
        """Leaves a room, or joins it."""
        wire = self.wire
        if not self.is_zim or wire is None or not self.is_ready or self.leaving or wire.comet.is_stopped:
            return
        comet, now, stream = wire.comet, wire.comet.now, f"r:{room}"
        if room in self.rooms and stream in self.have:
            self.rooms.remove(room)
            self.leaving = stream
            comet.act(comet.hub.leave_rooms, wire, [room], 1, now)
        elif room not in self.rooms:
            self.rooms.append(room)
            resume = {stream: self.have[stream]} if stream in self.have else None
            comet.act(comet.hub.join_rooms, wire, [room], 1, now, resume)

    def gather(self, count: int) -> None:
        """Joins so many rooms at once; or leaves them, if it is in one of them."""
        wire, rooms = self.wire, [f"hall-{n}" for n in range(count)]
        if not self.is_zim or wire is None or not self.is_ready or self.leaving or wire.comet.is_stopped:
            return
        hub, streams = wire.comet.hub, [f"r:{room}" for room in rooms]
        if is_leaving := not self.have.keys().isdisjoint(streams):
            self.rooms = [room for room in self.rooms if room not in rooms]
            self.leaving = streams[0]
        else:
            self.rooms += rooms

        def ask() -> None:
            if not wire.is_closed:
                wire.ask(hub.leave_rooms if is_leaving else hub.join_rooms, rooms, 1, wire.comet.now)

        wire.comet.later(0.001, ask)

    def acknowledge(self) -> None:
        """What it has of its own stream."""
        wire, stream = self.wire, user_stream(self.uid)
        if self.is_zim and wire is not None and self.is_ready and stream in self.have and not wire.comet.is_stopped:
            offset = self.have[stream][1]
            self.world.acks[self.uid] = max(offset, self.world.acks.get(self.uid, 0))
            wire.comet.act(wire.comet.hub.acknowledge, wire, offset, wire.comet.now)

    def look_back(self, which: int, after: int) -> None:
        """Asks for the history of one of its streams."""
        wire, stream = self.wire, self.streams[which % len(self.streams)]
        if self.is_zim and wire is not None and self.is_ready and not wire.comet.is_stopped:
            request, hub = ReadHistory(stream, after, 10), wire.comet.hub
            wire.comet.act(hub.read_history, wire, request, after + 1, wire.comet.now)

    # -- receiving

    def _fail(self, claim: str) -> None:
        raise Violation(f"{self.world.kernel.now:.3f} {self.name} on {self.wire and self.wire.comet.name}: {claim}")

    def receive(self, wire: Wire, chunk: bytes) -> None:
        """Bytes from its comet."""
        if self.wire is not wire:
            return
        for p in packets_in(chunk):
            if p.op in (Op.AUTH_REPLY, Op.JOINED):
                self.is_ready = True
                for start in json.loads(p.body):
                    self._start(Start(*start))
            elif p.op == Op.GAP:
                self._gap(Missed(*json.loads(p.body)))
            elif p.op == Op.LEFT:
                left = json.loads(p.body)["streams"]
                if self.leaving in left or not left:  # else a backend has put it out of a room
                    self.leaving = ""
            elif p.op == Op.ACKNOWLEDGED:
                (offset,) = json.loads(p.body).values()
                if offset > self.world.acks.get(self.uid, 0):
                    self._fail(f"the cursor is at {offset}, nobody asked for more than {self.world.acks}")
                self.acknowledged = max(self.acknowledged, offset)
            elif p.op == Op.HISTORY_REPLY:
                self._look_at(json.loads(p.body), p.seq - 1)
            elif p.op == Op.PUSH:
                self._push(p)

    def _start(self, s: Start) -> None:
        if s.error:
            return
        self.world.check_start(self, s)
        self.since[s.stream] = self.world.kernel.now
        if s.stream not in self.have and self.is_amnesic and s.stream == user_stream(self.uid):
            self.is_amnesic = False
            if s.recovered and not self.acknowledged <= s.offset <= self.world.acks.get(self.uid, 0):
                self._fail(f"{s.stream}: starts at {s.offset}; acknowledged are {self.acknowledged}, {self.world.acks}")
        elif s.stream in self.have and self.is_zim:
            if s.recovered and self.have[s.stream] != (s.epoch, s.offset):
                self._fail(f"{s.stream}: told to go on from {s.offset}, has {self.have[s.stream]}")
            if not s.recovered:
                self.world.check_not_recovered(self, s, self.have[s.stream])
        self.have[s.stream] = (s.epoch, s.offset)

    def _gap(self, gap: Missed) -> None:
        if gap.stream not in self.have:
            return
        epoch, offset = self.have[gap.stream]
        is_next = gap.first == offset + 1 or self.world.may_pass(self, (gap.stream, epoch), offset, gap.first)
        if gap.epoch == epoch and not is_next:
            self._fail(f"{gap} does not fit, has {offset}")
        self.have[gap.stream] = (gap.epoch, gap.last)

    def _push(self, p: Packet) -> None:
        push_id = p.body.decode()
        if not self.is_zim:
            self._goim_push(push_id)
            return
        if p.stream not in self.have:
            self._fail(f"got {p.stream} before it was told that it is in it")
        epoch, offset = self.have[p.stream]
        self.world.check_in_time(self.name, [p.stream], push_id)
        if p.offset != offset + 1 and not self.world.may_pass(self, (p.stream, epoch), offset, p.offset):
            self._fail(f"got {p.stream} {p.offset} {'twice' if p.offset <= offset else 'with a hole'} after {offset}")
        if p.stream == self.leaving and not self.leaving:
            self._fail(f"got {p.stream} after it left")
        if not self.is_meant(self.world.backend.pushes[push_id][0], p.stream):
            self._fail(f"got {push_id} of {p.stream}, which is for other sessions")
        self.have[p.stream] = (epoch, p.offset)
        self.world.check_content(self.name, p.stream, epoch, p.offset, push_id)

    def _look_at(self, past: dict[str, Any], after: int) -> None:
        """A piece of a history has all that was kept, and that it may see, in its order."""
        stream, epoch, offset = past["stream"], past["epoch"], max(after, past["first"] - 1)
        for m in past["messages"]:
            push_id = b64decode(m["base64"]).decode()
            self.world.check_content(self.name, stream, epoch, m["offset"], push_id)
            self.world.check_in_time(self.name, [stream], push_id)
            if not self.is_meant(self.world.backend.pushes[push_id][0], stream):
                self._fail(f"is shown {push_id} of {stream}, which is for other sessions")
            self._pass_over(stream, epoch, offset, m["offset"])
            offset = m["offset"]
        self._pass_over(stream, epoch, offset, past["last"] + 1)

    def _pass_over(self, stream: str, epoch: str, after: int, before: int) -> None:
        if before > after + 1 and not self.world.may_pass(self, (stream, epoch), after, before):
            self._fail(f"{stream}: its history has nothing between {after} and {before}")

    def _goim_push(self, push_id: str) -> None:
        """goim's wire does not tell the stream: only a push to one of its streams, and there once, can be checked for
        its order. It is there twice if the backup of a router that knew its key came back."""
        push, _ = self.world.backend.pushes[push_id]
        mine = [s for s in push.streams if s in self.streams and self.is_meant(push, s)]
        self.world.check_in_time(self.name, mine, push_id)
        if not mine:
            self._fail(f"got {push_id}, which is not for it")
        got = self.got.setdefault(push_id, [])
        got.append(push_id)
        if len(got) > self.world.times_kept(push_id, mine):
            self._fail(f"got {push_id} {len(got)} times, it was for {mine}")
        if len(mine) == 1 and self.world.times_kept(push_id, mine) == 1:
            (stream,) = mine
            at = self.world.place_of(stream, push_id)
            before = self.have.get(stream)
            if before is not None and at[0] == before[0] and at[1] <= before[1]:
                self._fail(f"got {push_id}, {at} of {stream}, after {before}")
            self.have[stream] = at

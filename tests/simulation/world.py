"""A whole fabric in one process, in virtual time: zim's own Shard, MemoryLog and Hub; everything around is simulated.

Links delay, lose what ZeroMQ can lose, and break; nodes are killed and stopped. One seed decides everything, so a seed
replays a run. The method is FoundationDB's and TigerBeetle's (docs.tigerbeetle.com, "VOPR").
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zim.nodes.comet.hub import Hub, Pass
from zim.nodes.comet.views import Session
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.shard import Admission, Shard
from zim.nodes.state import StateDir
from zim.protocol import codec, frame, messages
from zim.protocol.client import Dialect
from zim.sharding import Shards, rank

ROUTERS, JOBS, COMETS = ["router-1", "router-2"], ["job-1", "job-2"], ["comet-1", "comet-2"]
STREAMS = ["u:1", "u:2", "u:3", "r:a", "r:b", "*"]
SHARDS = Shards(ROUTERS)
TICK_S = 0.1
AWAY_S = 3.5  # a lease is 2.5 s, and what is under way may be late
CHAOS_S, SETTLE_S = 10.0, 12.0
MAX_BEHIND_BYTES = 20_000
INFINITE = 1 << 60


class Violation(AssertionError):
    """A promise did not hold."""


class Disk(StateDir):
    """A node's numbers, without a disk."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.path = Path("virtual")

    def read(self, name: str) -> int:
        return self.numbers.get(name, 0)

    def write(self, name: str, number: int) -> None:
        self.numbers[name] = number


class Node:
    """One process: timers and messages reach it while it runs; while it is stopped they wait."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.disk = Disk()
        self.run = 0
        self.is_up = self.is_stopped = False
        self.since = 0.0  # of the last start, stop or death
        self.backlog: list[tuple[int, Callable[[], None]]] = []

    def boot(self) -> None:
        """Starts with what is on disk, and nothing else."""

    def receive(self, src: str, m: Any) -> None:
        """A message has come."""

    def every(self, period_s: float, step: Callable[[], None]) -> None:
        """Does something again and again, while this run lasts."""

        def again() -> None:
            step()
            self.world.after(period_s, again, self)

        self.world.after(period_s * self.world.rng.random(), again, self)


class RouterNode(Node):
    """What zim.nodes.router.node does, without sockets."""

    def boot(self) -> None:
        w = self.world
        self.term = self.disk.next_run("term", 1)
        self.log = MemoryLog(self.term, self.disk, lambda: w.now, keep_s=20.0, keep_bytes=1 << 30)
        self.admitted: list[Admission[str]] = []
        self.is_committing = False
        self.shard: Shard[str] = Shard(
            self.name,
            self.term,
            SHARDS,
            COMETS,
            self.log,
            self._admit,
            w.now,
            MAX_BEHIND_BYTES,
            self.log.reserve_seqs(1000),
        )
        self.every(TICK_S, lambda: self._answer(self.shard.tick(w.now)))

    def _admit(self, admission: Admission[str], size: int) -> bool:
        self.admitted.append(admission)
        if not self.is_committing:
            self.is_committing = True
            self.world.after(self.world.rng.choice([0, 0, 0.001, 0.03]), self._commit, self)
        return True

    def _commit(self) -> None:
        batch, self.admitted, self.is_committing = self.admitted, [], False
        records = self.shard.records(batch)
        offsets = self.log.append(records)
        for record, offset in zip(records, offsets, strict=True):
            self.world.saw_append(record.stream, self.log.head(record.stream)[0], offset, record.push_id)
        pushes, answers = self.shard.committed(batch, offsets)
        for push in pushes:
            for target in push.targets:
                ranked = rank(target.comet, JOBS)
                job = next((j for j in ranked if self.world.is_connected(self.name, j)), ranked[0])
                part = messages.Push(push.router, push.term, push.push_id, push.op, push.body, [target])
                self.world.send(self.name, job, part)
        self._answer(answers)

    def _answer(self, answers: list[tuple[str, Any]]) -> None:
        for peer, m in answers:
            self.world.send(self.name, peer, m)

    def receive(self, src: str, m: Any) -> None:
        now, shard = self.world.now, self.shard
        answer: Any = None
        match m:
            case messages.Publish():
                answer = shard.publish(src, m, now)
            case messages.Changes():
                answer = shard.changes(m, now)
            case messages.Renew():
                answer = shard.renew(m, now)
            case messages.Fetch():
                answer = shard.fetch(m)
            case messages.Read():
                answer = shard.read(m)
        if answer is not None:
            self.world.send(self.name, src, answer)


class JobNode(Node):
    """What zim.nodes.job.node does."""

    def receive(self, src: str, m: Any) -> None:
        for t in m.targets:
            entry = messages.Entry(m.router, m.term, t.comet, t.inc, t.n, m.push_id, m.op, m.body, t.items)
            self.world.send(self.name, t.comet, entry)


class CometNode(Node):
    """What zim.nodes.comet.node does. A pass takes its time, and anything may happen between two of its writes."""

    def boot(self) -> None:
        w = self.world
        self.hub = Hub(self.name, self.disk.next_run("incarnation", 1), ROUTERS, self._send)
        self.every(0.025, lambda: self._after(lambda: self.hub.tick(w.now, MAX_BEHIND_BYTES // 4)))

    def _send(self, router: str, m: Any, size: int) -> bool:
        return self.world.send(self.name, router, m)

    def _after(self, step: Callable[[], Any]) -> None:
        step()
        self._pump()

    def _pump(self) -> None:
        todo = self.hub.next_pass(self.world.now)
        if todo is not None:
            work = deque((session, chunk) for sessions, chunk in todo.writes for session in sessions)
            self.world.after(0, lambda: self._go_on(todo, work), self)

    def _go_on(self, todo: Pass, work: deque[tuple[Session, bytes]]) -> None:
        for _ in range(min(2, len(work))):
            session, chunk = work.popleft()
            session.write(chunk)
        if work:
            self.world.after(self.world.rng.choice([0, 0.001, 0.05]), lambda: self._go_on(todo, work), self)
        else:
            self.hub.end_pass(todo, self.world.now)
            self._pump()

    def receive(self, src: str, m: Any) -> None:
        now, hub = self.world.now, self.hub
        match m:
            case messages.Entry():
                hub.entry(m)
            case messages.Answers():
                hub.answers(m, now)
            case messages.Fetched():
                hub.fetched(m, now)
            case messages.Records():
                hub.records(m)
            case messages.Renewed():
                if hub.renewed(m, now):
                    raise Violation(f"{self.name} is fenced, yet it is the only one of its name")
        self._pump()


class Device(Session):
    """A client, and the checker of what reaches it."""

    __slots__ = ("comet", "got", "is_gone", "joined", "name", "opened_at", "streams", "world")

    def __init__(self, world: World, conn: int, comet: CometNode, uid: str, rooms: list[str]) -> None:
        super().__init__(conn, Dialect.V1_TCP)
        self.world, self.comet = world, comet
        self.name = f"user {uid} on {comet.name}, connection {conn}"
        self.streams = [f"u:{uid}", *(f"r:{r}" for r in rooms), "*"]
        self.opened_at = -1.0
        self.joined: set[str] = set()  # with the auth reply; other rooms, whose shard was away, in the background
        self.is_gone = False
        self.got: dict[str, list[str]] = {s: [] for s in self.streams}

    def opened(self) -> None:
        self.opened_at = self.world.now
        self.joined = {v.stream for v in self.views if v.is_told and not v.asked}

    def write(self, chunk: bytes) -> None:
        if self.is_gone:
            return
        if self.opened_at < 0:
            raise Violation(f"{self.name}: a message before the auth reply")
        packets, rest = frame.split(chunk, 1 << 20)
        if rest:
            raise Violation("half a packet")
        for p in packets:
            stream, push_id = p.body.decode().split(" ")
            if stream not in self.got:
                raise Violation(f"{self.name} got {stream}")
            self.world.check_got(self, stream, push_id)
            self.got[stream].append(push_id)


class World:
    """Clock, links, faults, and what an all-knowing observer saw."""

    def __init__(self, seed: int, faults: tuple[str, ...]) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.queue: list[tuple[float, int, Node | None, int, Callable[[], Any]]] = []
        self.count = 0
        self.loss = 0.0
        self.settled_at = 0.0
        self.last: dict[tuple[str, str], float] = {}
        self.cut_until: dict[tuple[str, str], float] = {}
        self.generation: dict[tuple[str, str], int] = {}
        self.appended: dict[str, dict[str, tuple[float, str, int]]] = {
            s: {} for s in STREAMS
        }  # push → when, epoch, offset
        self.publishes: dict[str, tuple[str, float, int, int]] = {}  # push → stream, asked at, attempts, term
        self.answers: dict[str, str] = {}
        self.router_died: dict[str, float] = dict.fromkeys(ROUTERS, -1.0)
        self.devices: list[Device] = []
        self.nodes: dict[str, Node] = {}
        kinds: list[tuple[list[str], type[Node]]] = [(ROUTERS, RouterNode), (JOBS, JobNode), (COMETS, CometNode)]
        for names, kind in kinds:
            for name in names:
                self.nodes[name] = kind(self, name)
                self.start(name)
        for i, (uid, rooms) in enumerate([("1", ["a"]), ("1", ["a", "b"]), ("2", ["b"]), ("3", []), ("2", ["a"])]):
            self.after(0.1 * i, lambda i=i, u=uid, r=rooms: self.connect(u, r, COMETS[i % 2]))  # type: ignore[misc]
        for _ in range(self.rng.choice([30, 100, 250])):
            self.after(0.5 + CHAOS_S * self.rng.random(), self.publish)
        for _ in range(self.rng.choice([1, 2, 4, 8])):
            self.after(0.5 + CHAOS_S * self.rng.random(), getattr(self, self.rng.choice(faults)))

        self.look()

    def look(self) -> None:
        """Now and then: a comet that is away loses its lease in time."""
        for router in (self.nodes[r] for r in ROUTERS):
            assert isinstance(router, RouterNode)
            for comet in (self.nodes[c] for c in COMETS):
                is_away = (comet.is_stopped or not comet.is_up) and self.now - comet.since > AWAY_S
                is_calm = router.is_up and not router.is_stopped and self.now - router.since > AWAY_S
                feed = router.shard.directory.feeds.get(comet.name)
                if is_away and is_calm and feed is not None and feed.is_alive:
                    raise Violation(f"{self.now:.3f} {router.name} still believes in {comet.name}")
        self.after(0.25, self.look)

    # -- mechanics

    def after(self, delay_s: float, step: Callable[[], Any], node: Node | None = None) -> None:
        """Does something later, in a node's life or in nobody's."""
        self.count += 1
        heapq.heappush(self.queue, (self.now + delay_s, self.count, node, node.run if node else 0, step))

    def go(self, until: float) -> None:
        """Runs the clock."""
        while self.queue and self.queue[0][0] <= until:
            self.now, _, node, run, step = heapq.heappop(self.queue)
            if node is None or (node.is_up and node.run == run and not node.is_stopped):
                step()
            elif node.is_up and node.run == run:
                node.backlog.append((run, step))
        self.now = until

    def is_connected(self, src: str, dst: str) -> bool:
        """Whether a message would be taken."""
        return dst.startswith("logic") or (self.nodes[dst].is_up and self.cut_until.get((src, dst), 0.0) <= self.now)

    def send(self, src: str, dst: str, m: Any) -> bool:
        """First in, first out; lost where ZeroMQ can lose. Every message crosses the codec."""
        expected: Any = messages.ToRouter | messages.ToComet | messages.Entry | messages.Push | messages.Published
        (m,) = codec.decode(codec.encode([m]), expected)
        if not self.is_connected(src, dst):
            return False
        if dst.startswith("logic "):
            self.after(0.001, lambda: self.published(dst.removeprefix("logic "), m))
            return True
        node, pair = self.nodes[dst], (src, dst)
        if self.rng.random() < self.loss or len(node.backlog) > 100:
            return True
        delay = self.rng.choice([0.0005, 0.001, 0.001, 0.005, 0.02, 0.3 if self.loss else 0.02])
        self.last[pair] = max(self.last.get(pair, 0.0), self.now + delay)
        generation = self.generation.get(pair, 0)

        def arrive() -> None:
            if generation == self.generation.get(pair, 0) or self.rng.random() < 0.3:
                node.receive(src, m)

        self.after(self.last[pair] - self.now, arrive, node)
        return True

    def break_links(self, name: str) -> None:
        """What is under way to or from a node may be lost, from some point on."""
        for pair in list(self.last):
            if name in pair:
                self.generation[pair] = self.generation.get(pair, 0) + 1

    # -- what people do

    def connect(self, uid: str, rooms: list[str], comet: str) -> None:
        """A client comes; if its comet is down it tries the other one."""
        node = self.nodes[comet]
        assert isinstance(node, CometNode)
        if not node.is_up or node.is_stopped:
            self.after(0.5, lambda: self.connect(uid, rooms, COMETS[1 - COMETS.index(comet)]))
            return
        self.count += 1
        device = Device(self, self.count, node, uid, rooms)
        self.devices.append(device)
        node.hub.join(device, uid, rooms, self.now)

    def move(self) -> None:
        """A client hangs up and comes back elsewhere."""
        here = [d for d in self.devices if not d.is_gone and d.comet.is_up and not d.comet.is_stopped]
        if here:
            device = self.rng.choice(here)
            device.is_gone = True
            device.comet.hub.leave(device, self.now)
            self.after(0.1, lambda: self.connect(device.uid, list(device.rooms), self.rng.choice(COMETS)))

    def publish(self) -> None:
        """A backend pushes; its logic asks again, as zim.nodes.logic.fabric does."""
        self.count += 1
        stream, push_id = self.rng.choice(STREAMS), f"p{self.count}"
        self.publishes[push_id] = (stream, self.now, 0, 0)
        self.attempt(push_id, f"{stream} {push_id}".encode())

    def attempt(self, push_id: str, body: bytes) -> None:
        stream, at, attempts, term = self.publishes[push_id]
        if push_id in self.answers or attempts >= 3:
            return
        router = self.nodes[SHARDS.owner(stream)]
        assert isinstance(router, RouterNode)
        term = term or router.term
        m = messages.Publish(1, push_id, [stream], 5, body, attempts + 1, term)
        if self.is_connected("logic", router.name):
            self.publishes[push_id] = (stream, at, attempts + 1, term)
            if self.rng.random() >= self.loss:
                self.after(0.001, lambda: self._ask(router, m), router)
        self.after(2.0, lambda: self.attempt(push_id, body))

    def _ask(self, router: RouterNode, m: messages.Publish) -> None:
        answer = router.shard.publish("logic " + m.push_id, m, self.now)
        if answer is not None:
            self.published(m.push_id, answer)

    def published(self, push_id: str, m: messages.Published) -> None:
        """A publisher hears."""
        self.answers.setdefault(push_id, m.status)
        if m.status == "unavailable" and push_id in self.appended[self.publishes[push_id][0]]:
            raise Violation(f"503 for {push_id}, which is stored")

    # -- what the observer sees

    def saw_append(self, stream: str, epoch: str, offset: int, push_id: str) -> None:
        if push_id in self.appended[stream]:
            raise Violation(f"{push_id} is in {stream} twice")
        self.appended[stream][push_id] = (self.now, epoch, offset)

    def check_got(self, device: Device, stream: str, push_id: str) -> None:
        """In order, and once."""
        got = device.got[stream]
        if push_id in got:
            raise Violation(f"{self.now:.3f} {device.name} got {push_id} of {stream} twice")
        if got:
            before, after = self.appended[stream][got[-1]], self.appended[stream][push_id]
            if after[0] < before[0] or (after[1] == before[1] and after[2] <= before[2]):
                raise Violation(f"{self.now:.3f} {device.name} got {push_id} of {stream} after {got[-1]}")

    # -- faults

    def start(self, name: str) -> None:
        node = self.nodes[name]
        node.run, node.is_up, node.is_stopped, node.since = node.run + 1, True, False, self.now
        node.backlog.clear()
        node.boot()

    def kill(self, name: str) -> None:
        node = self.nodes[name]
        if not node.is_up:
            return
        node.is_up = False
        node.since = node.since if node.is_stopped else self.now
        self.break_links(name)
        if name in ROUTERS:
            self.router_died[name] = self.now
        for device in self.devices:
            if device.comet is node and not device.is_gone:
                device.is_gone = True
                rooms = [s[2:] for s in device.streams if s.startswith("r:")]
                self.after(0.2, lambda d=device, r=rooms: self.connect(d.streams[0][2:], r, self.rng.choice(COMETS)))  # type: ignore[misc]
        self.after(self.rng.choice([0.05, 0.5, 4.0]), lambda: self.start(name))

    def kill_comet(self) -> None:
        self.kill(self.rng.choice(COMETS))

    def kill_job(self) -> None:
        self.kill(self.rng.choice(JOBS))

    def kill_router(self) -> None:
        self.kill(self.rng.choice(ROUTERS))

    def stop_node(self) -> None:
        """SIGSTOP, and SIGCONT."""
        node = self.nodes[self.rng.choice(ROUTERS + JOBS + COMETS)]
        if node.is_up and not node.is_stopped:
            node.is_stopped, node.since, run = True, self.now, node.run
            self.after(self.rng.choice([0.2, 0.8, 2.0, 3.5, 6.0]), lambda: self._cont(node, run))

    def _cont(self, node: Node, run: int) -> None:
        if node.run != run or not node.is_stopped:
            return
        node.is_stopped, node.since = False, self.now
        backlog, node.backlog = node.backlog, []
        for _, step in backlog:
            if node.is_up and node.run == run:
                step()

    def cut(self) -> None:
        """A link is gone for a while, in one direction or both."""
        a = self.rng.choice(ROUTERS + JOBS)
        b = self.rng.choice(COMETS + (JOBS if a in ROUTERS else []))
        until = self.now + self.rng.choice([0.1, 1.0, 4.0])
        for pair in [(a, b), (b, a)][: self.rng.choice([1, 2])]:
            self.cut_until[pair] = until
            self.generation[pair] = self.generation.get(pair, 0) + 1

    def lose(self) -> None:
        """Messages get lost here and there."""
        self.loss = self.rng.choice([0.05, 0.3])
        self.after(self.rng.choice([0.5, 3.0]), lambda: setattr(self, "loss", 0.0))

    # -- the end

    def settle(self) -> None:
        """Faults stop; then everything must have arrived, and every view must agree."""
        self.loss = 0.0
        self.cut_until.clear()
        for node in self.nodes.values():
            if node.is_stopped:
                self._cont(node, node.run)
        self.go(self.now + SETTLE_S)
        self.settled_at = self.now - 1e-9
        last = {s: f"last{s}" for s in STREAMS}
        for stream, push_id in last.items():
            self.publishes[push_id] = (stream, self.now, 0, 0)
            self.attempt(push_id, f"{stream} {push_id}".encode())
        self.go(self.now + 5.0)
        self._check_devices()
        self._check_directory()

    def _check_devices(self) -> None:
        for device in self.devices:
            if device.is_gone:
                continue
            if device.opened_at < 0:
                raise Violation(f"{device.name} never got its auth reply")
            for stream in device.streams:
                died = self.router_died[SHARDS.owner(stream)]
                for push_id, (at, _, _) in self.appended[stream].items():
                    asked_at = self.publishes[push_id][1]
                    since = device.opened_at if stream in device.joined else self.settled_at
                    if asked_at > since and at > died and push_id not in device.got[stream]:
                        raise Violation(f"{device.name} lacks {push_id} of {stream}, appended at {at:.3f}")

    def _check_directory(self) -> None:
        for router in (self.nodes[r] for r in ROUTERS):
            assert isinstance(router, RouterNode)
            if router.shard.is_rebuilding:
                raise Violation(f"{router.name} is rebuilding still")
            for comet in (self.nodes[c] for c in COMETS):
                assert isinstance(comet, CometNode)
                feed = router.shard.directory.feeds[comet.name]
                want = {
                    d.conn: (d.uid, d.seq)
                    for d in comet.hub.sessions.values()
                    if SHARDS.owner("u:" + d.uid) == router.name
                }
                have = {s.conn: (s.uid, s.seq) for s in feed.sessions.values()}
                if want != have:
                    raise Violation(f"{router.name} believes {have} of {comet.name}, which has {want}")
                rooms: dict[str, int] = {}
                for d in comet.hub.sessions.values():
                    for room in d.rooms:
                        if SHARDS.owner("r:" + room) == router.name:
                            rooms[room] = rooms.get(room, 0) + 1
                if rooms != {r: n for r, n in feed.rooms.items() if r != "*"}:
                    raise Violation(f"{router.name} believes rooms {feed.rooms} of {comet.name}, which has {rooms}")
                if feed.behind_bytes or feed.admitted_bytes:
                    raise Violation(f"{router.name} keeps {feed.behind_bytes} bytes for {comet.name}")


def run(seed: int, faults: tuple[str, ...]) -> None:
    """One run.

    Raises:
        Violation: a promise did not hold.
    """
    world = World(seed, faults)
    world.go(CHAOS_S)
    world.settle()

"""The mechanics of a simulated fabric: clock, links, processes. One seeded random.Random decides everything.

Links delay, lose what ZeroMQ can lose, and break; nodes are killed and stopped. The method is FoundationDB's and
TigerBeetle's (docs.tigerbeetle.com, "VOPR").
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.layout import Layout
from tests.simulation.work import LINE_S, STEP_LINES, Meter
from zim.fabric.ceilings import NO_CEILINGS, Ceilings
from zim.nodes.comet.effects import Replaced, Told
from zim.nodes.effects import Effect, Note, Replies, Send
from zim.nodes.logic.runner import Settled
from zim.nodes.performer import Performer
from zim.protocol import codec, logins, messages

DELAYS = [0.0005, 0.001, 0.001, 0.005, 0.02]
BACKLOG = 100  # messages that wait for a stopped node: what libzmq and the kernel hold

_OTHERS = (
    messages.ToJob
    | messages.Entry
    | messages.ToAsker
    | logins.Auth
    | logins.Authed
    | messages.Submit
    | messages.Submitted
)
_ANY: Any = messages.ToRouter | messages.ToComet | _OTHERS


class Violation(AssertionError):
    """A promise did not hold."""


class Node:
    """One process: timers and messages reach it while it runs; while it is stopped they wait."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel, self.name = kernel, name
        self.layout = self.file = kernel.layout  # as it runs, and as its topology has it
        self.run = 0
        self.is_up = self.is_stopped = False
        self.busy_until = 0.0
        self.since = 0.0  # of the last start, stop or death
        self.ahead_s, self.rate = kernel.rng.choice([0.0, 7e4]), kernel.rng.choice([1.0, 1 + 5e-5, 1 - 5e-5])
        self.backlog: list[tuple[int, Callable[[], None]]] = []
        self.on_end: Callable[[str], None] = lambda name: None

    @property
    def now(self) -> float:
        """Its own monotonic seconds: they begin anywhere, and run a little faster or slower than others'."""
        return self.ahead_s + self.kernel.now * self.rate

    def boot(self) -> None:
        """Starts with what is on disk, and nothing else."""

    def reload(self) -> None:
        """Takes over what is new in its topology."""
        self.layout = self.file

    def crash(self) -> None:
        """Dies."""

    def end(self, away_s: float) -> None:
        """Ends by itself, and is started again."""
        kernel, name, on_end = self.kernel, self.name, self.on_end

        def over() -> None:
            if kernel.kill(name):
                on_end(name)
                kernel.after(away_s, lambda: kernel.start(name))

        kernel.after(0, over)

    def receive(self, src: str, run: int, m: Any) -> None:
        """A message has come. run: that of its sender."""

    def lost(self, peer: str) -> None:
        """A peer is dead, and the link to it broken."""

    def send(self, dst: str, m: Any) -> bool:
        """Sends a message, or says that nobody is there. What is sent may get lost."""
        return self.kernel.send(self.name, dst, m)

    def later(self, delay_s: float, step: Callable[[], None]) -> None:
        """Does something, if this run lasts until then."""
        self.kernel.after(delay_s, step, self)

    def every(self, period_s: float, step: Callable[[], None]) -> None:
        """Does something again and again, while this run lasts."""
        after = self.kernel.after

        def again() -> None:
            step()
            after(period_s, again, self)

        after(period_s * self.kernel.rng.random(), again, self)


class Driver(Node, Performer):
    """A process that does what its runner wants.

    Attributes:
        there: whom it follows, and who has come.
    """

    runner: Any
    disk: Any

    def __init__(self, kernel: Kernel, name: str) -> None:
        Node.__init__(self, kernel, name)
        Performer.__init__(self)
        self.on_answer: Callable[[str, Any], None] = lambda asker, m: None
        self.there: set[str] = set()
        self._links: dict[str, bool] = {}  # what the runner knows of them
        self._told: Any = None  # that runner

    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Send(peer=peer, message=m):
                if not self.send(peer, m) and isinstance(m, messages.Publish | logins.Auth):
                    req = m.req
                    self.later(0, lambda: self.perform(self.runner.on_not_sent([req], self.now)))
            case Replies(answers=answers):
                for (asker, run), m in answers:
                    if self.kernel.nodes[asker].run == run:  # the connection of an earlier run is gone with it
                        self.on_answer(asker, m)
                        self.send(asker, m)
            case Note(event=event, fields=fields):
                self.kernel.note(self.name, event, fields)
            case Replaced(known_inc=known_inc):
                self.disk.write("incarnation", known_inc)
                self.end(0.5)
            case Settled(ticket=done, outcome=outcome) | Told(ticket=done, answer=outcome):
                done(outcome)
            case _:
                raise Violation(f"{self.name} wants {effect}")

    def look_at(self, peers: Iterable[str]) -> None:
        """Tells the runner who has come or gone."""
        if self._told is not self.runner:
            self._told, self._links = self.runner, {}
        for peer in peers:
            is_there = self.kernel.is_connected(self.name, peer)
            if self._links.get(peer) is not is_there:
                self._links[peer] = is_there
                self.runner.on_link(peer, is_there)

    def follow(self, peers: Iterable[str]) -> Iterator[Effect]:
        """Tells the runner who has come, once; that one has gone `lost` tells."""
        for peer in peers:
            if peer not in self.there and self.kernel.is_connected(self.name, peer):
                self.there.add(peer)
                yield from self.runner.on_link(peer, True, self.now)

    def lost(self, peer: str) -> None:
        if peer in self.there:
            self.there.discard(peer)
            self.perform(self.runner.on_link(peer, False, self.now))

    def receive(self, src: str, run: int, m: Any) -> None:
        self.perform(self.runner.on_messages((src, run), [m], self.now))


@dataclass
class Lane:
    """One direction of a link: first in, first out, until it breaks."""

    last: float = 0.0
    generation: int = 0
    cut_until: float = 0.0


@dataclass
class Kernel:
    """Clock and links.

    Attributes:
        loss: how likely a message gets lost.
        crosses_codec: every message is encoded and decoded on its way.
        part_streams: of a push, before it is cut; most_changes: of one message.
        max_behind_bytes, admitted_bytes: of a router, see Intake; renew_bytes: of a comet, see its runner.
        starts: of all processes, when each was.
        layout: of the fabric.
        meter: charges for work, if that costs anything.
        limits: how much backends may do.
        vaults: by router, what it keeps of its own shard; engine: the shared log instead of that, if there is one.
    """

    rng: random.Random
    layout: Layout
    crosses_codec: bool = False
    trace: bool = False
    now: float = 0.0
    loss: float = 0.0
    nodes: dict[str, Node] = field(default_factory=dict)
    part_streams: int = 500
    most_changes: int = 2
    max_behind_bytes: int = 4_000
    admitted_bytes: int = 3_000
    renew_bytes: int = 1_000
    meter: Meter | None = None
    limits: Ceilings = NO_CEILINGS
    vaults: dict[str, Any] = field(default_factory=dict)
    engine: Any = None
    pipes: dict[tuple[str, str], Lane] = field(default_factory=dict)
    starts: list[tuple[float, str]] = field(default_factory=list)
    _queue: list[tuple[float, int, Node | None, int, Callable[[], Any]]] = field(default_factory=list)
    _count: int = 0

    # -- time

    def number(self) -> int:
        """One that was not given before."""
        self._count += 1
        return self._count

    def after(self, delay_s: float, step: Callable[[], Any], node: Node | None = None) -> None:
        """Does something then; for a node only if that run of it lasts."""
        entry = (self.now + delay_s, self.number(), node, node.run if node else 0, step)
        heapq.heappush(self._queue, entry)

    def go(self, until: float) -> None:
        """Lets time pass."""
        while self._queue and self._queue[0][0] <= until:
            self.now, number, node, run, step = heapq.heappop(self._queue)
            if node is None:
                step()
            elif not node.is_up or node.run != run:
                continue
            elif node.is_stopped:
                node.backlog.append((run, step))
            elif self.meter is None:
                step()
            elif node.busy_until > self.now:
                heapq.heappush(self._queue, (node.busy_until, number, node, run, step))
            else:
                self._charge(self.meter, node, step)
        self.now = until

    def _charge(self, meter: Meter, node: Node, step: Callable[[], Any]) -> None:
        """Its time passes for the node; and nobody else's turn comes too late."""
        meter.charge(step)
        node.busy_until = self.now + LINE_S * meter.lines
        if meter.longest > STEP_LINES:
            raise Violation(f"{self.now:.3f} {node.name} does nothing else for {meter.longest} lines")

    def pause(self) -> None:
        """A node gives way in the middle of its work."""
        if self.meter is not None:
            self.meter.pause()

    def note(self, who: str, what: str, thing: Any) -> None:
        """A line of the trace."""
        if self.trace:
            print(f"{self.now:9.4f} {who:>24} {what} {thing}")  # noqa: T201

    # -- links

    def pipe(self, src: str, dst: str) -> Lane:
        """The way from one node to another."""
        found = self.pipes.get((src, dst))
        if found is None:
            found = self.pipes[src, dst] = Lane()
        return found

    def is_connected(self, src: str, dst: str) -> bool:
        """Whether a message would be taken."""
        if dst not in self.nodes or not self.nodes[dst].is_up:
            return False
        lane = self.pipes.get((src, dst))
        return lane is None or lane.cut_until <= self.now

    def send(self, src: str, dst: str, m: Any) -> bool:
        """First in, first out; lost where ZeroMQ can lose."""
        if not self.is_connected(src, dst):
            return False
        if self.crosses_codec:
            (m,) = codec.decode(codec.encode([m]), _ANY)
        node, pipe, run = self.nodes[dst], self.pipe(src, dst), self.nodes[src].run
        if (self.loss and self.rng.random() < self.loss) or len(node.backlog) > BACKLOG:
            self.note(src, f"lost on the way to {dst}", m)
            return True
        self.note(src, f"→ {dst}", m)
        delay_s = self.rng.choice([*DELAYS, 0.3]) if self.loss else self.rng.choice(DELAYS)
        pipe.last = max(pipe.last, self.now + delay_s)
        generation = pipe.generation

        def arrive() -> None:
            if generation == pipe.generation or self.rng.random() < 0.3:
                node.receive(src, run, m)

        self.after(pipe.last - self.now, arrive, node)
        return True

    def cut(self, src: str, dst: str, for_s: float) -> None:
        """The link is gone for a while, and what is under way on it may be."""
        pipe = self.pipe(src, dst)
        pipe.generation += 1
        pipe.cut_until = self.now + for_s

    # -- processes

    def start(self, name: str) -> None:
        """A new run of a node."""
        node = self.nodes[name]
        node.run, node.is_up, node.is_stopped, node.since = node.run + 1, True, False, self.now
        node.backlog.clear()
        node.layout = node.file
        self.starts.append((self.now, name))
        self.note(name, "starts", node.run)
        node.boot()

    def kill(self, name: str) -> bool:
        """kill -9. Returns whether it was up."""
        node = self.nodes[name]
        if not node.is_up:
            return False
        self.note(name, "dies", "")
        node.crash()
        node.is_up = False
        node.since = node.since if node.is_stopped else self.now
        for pair, pipe in self.pipes.items():
            if name in pair:
                pipe.generation += 1
        for other in self.nodes.values():
            if other.is_up:
                self.after(0.001, lambda other=other: other.lost(name), other)  # type: ignore[misc]
        return True

    def stop(self, name: str, for_s: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        node = self.nodes[name]
        if node.is_up and not node.is_stopped:
            self.note(name, "stands still", for_s)
            node.is_stopped, node.since, run = True, self.now, node.run
            self.after(for_s, lambda: self.cont(name, run))

    def cont(self, name: str, run: int) -> None:
        """SIGCONT: everything that waited happens now."""
        node = self.nodes[name]
        if node.run != run or not node.is_stopped:
            return
        self.note(name, "goes on", "")
        node.is_stopped, node.since = False, self.now
        backlog, node.backlog = node.backlog, []
        for _, step in backlog:
            if node.is_up and node.run == run:
                step()

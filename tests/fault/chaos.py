"""Chaos on real processes: a seeded schedule of faults under numbered pushes, and a checker over what clients got.

    python -m tests.fault.chaos --seed 1 --seconds 60

At the end everything is healed, a last push goes to every stream, and when it has come (or had the time to) the checker
looks for what is lost, twice, out of order, or where it should not be. `--check FILE` judges a saved history again.
"""

from __future__ import annotations

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import argparse
import contextlib
import itertools
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gevent

from tests.fault import checker, wire
from tests.fault.checker import Finding
from tests.fault.clients import Goim, Person, Zim
from tests.fault.fabric import ChaosFabric, chaos_fabric
from tests.fault.history import Broken, History, load, save
from tests.fault.namespaces import namespace_fabric
from tests.fault.publishers import Backend, Publisher, World
from tests.fault.schedule import NODES, Operation, schedule
from tests.harness import wait_until

SETTLE_S = 60.0  # for a client to get the last push, once all is healed
BEAT_S = 3.0
FORGOTTEN_S = 2.0  # a router stores receipts once a second; one that is killed has not heard of more
SHOWN = 40  # findings that are printed one by one

ROOMS = ("1", "2", "3")
FIRST_UID = 1000
LEDGER = ("delivered", "gone", "shed", "expired", "unknown", "pending")


@dataclass(frozen=True)
class Plan:
    """What a run consists of. without: kinds of nodes and operations that are spared."""

    seed: int = 1
    seconds: float = 60.0
    zim_clients: int = 12
    goim_clients: int = 8
    publishers: int = 8
    rate: float = 60.0  # pushes a second, over all publishers
    without: tuple[str, ...] = ()
    has_namespaces: bool = False  # nodes in network namespaces, whose links swallow packets; else proxies


@dataclass
class Report:
    """What came out.

    Attributes:
        ledger: the sums over all receipts; None where the fabric has no receipts.
        unbalanced: receipts that do not add up, or stay pending.
    """

    history: History
    findings: list[Finding]
    answers: Counter[int] = field(default_factory=Counter)
    ledger: Counter[str] | None = None
    unbalanced: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        """Findings that break a promise."""
        return [f for f in self.findings if f.is_fault]

    @property
    def is_good(self) -> bool:
        """Every promise was kept."""
        return not (self.faults or self.unbalanced or self.crashes)


def run(plan: Plan, say: Callable[[str], None] = lambda line: None, folder: Path | None = None) -> Report:
    """One run on a fabric of its own.

    Args:
        say: is told what happens, line by line.
        folder: where the topology, its data and its log go; by default they are gone afterwards.
    """
    start = namespace_fabric if plan.has_namespaces else chaos_fabric
    with start(folder, routers=2, logics=2, jobs=2, comets=3) as fabric:
        return _Run(plan, fabric, say).run()


class _Run:
    def __init__(self, plan: Plan, fabric: ChaosFabric, say: Callable[[str], None]) -> None:
        self._plan, self._fabric, self._say_line = plan, fabric, say
        self._history = History(plan.seed)
        self._began = time.monotonic()
        self._backend = Backend(fabric.http)
        self._is_zim = speaks_zim(fabric)
        self._has_keys = self._backend.has("/api/push", "POST")
        self._uids = [FIRST_UID + i for i in range((plan.zim_clients if self._is_zim else 0) + plan.goim_clients)]
        self._people: list[Person] = []
        self._numbers = itertools.count(1)
        self._rng = random.Random(f"zim chaos run {plan.seed}")
        self._undoing: list[gevent.Greenlet[..., object]] = []

    def _clock(self) -> float:
        return time.monotonic() - self._began

    def _say(self, line: str) -> None:
        self._say_line(line)

    def run(self) -> Report:
        plan = self._plan
        self._say(f"seed {plan.seed}, {plan.seconds} s; zim's dialect: {self._is_zim}, keys: {self._has_keys}")
        publishers: list[Publisher] = []
        beating = gevent.spawn(self._beat)
        try:
            self._connect()
            self._began_again()
            publishers = [self._publisher(i, plan.rate / plan.publishers) for i in range(plan.publishers)]
            for operation in schedule(plan.seed, plan.seconds, len(self._people), NODES, plan.without):
                gevent.sleep(max(0.0, operation.at_s - self._clock()))
                self._say(str(operation))
                self._do(operation)
            gevent.sleep(max(0.0, plan.seconds - self._clock()))
            self._heal()
            for publisher in publishers:
                publisher.stop()
            self._settle(publishers[0])
        finally:
            gevent.killall([beating, *self._undoing])
            for one in publishers:
                one.kill()
            for person in self._people:
                person.stop()
        try:
            return self._report(publishers)
        finally:
            self._backend.close()

    def _beat(self) -> None:
        while True:
            gevent.sleep(BEAT_S)
            for person in self._people:
                person.beat()

    # -- setting up

    def _connect(self) -> None:
        plan, fabric = self._plan, self._fabric
        names = [("zim", i) for i in range(plan.zim_clients if self._is_zim else 0)]
        names += [("goim", i) for i in range(plan.goim_clients)]
        for uid, (dialect, i) in zip(self._uids, names, strict=True):
            is_ws = i % 2 == 1
            addresses, name = (fabric.ws if is_ws else fabric.tcp), f"{dialect}-{uid}-{'ws' if is_ws else 'tcp'}"
            seed = str(plan.seed)
            if dialect == "zim":
                rooms = set(self._rng.sample(ROOMS, self._rng.randint(1, len(ROOMS))))
                self._people.append(Zim(name, uid, addresses, is_ws, self._clock, seed, rooms))
            else:
                self._people.append(Goim(name, uid, addresses, is_ws, self._clock, seed))
        self._history.clients = [person.record for person in self._people]
        wait_until(lambda: all(person.is_online for person in self._people), "all clients are there")

    def _began_again(self) -> None:
        """Time 0 is when the schedule starts; what came before keeps its order, below it."""
        offset = self._clock()
        self._began += offset
        for person in self._people:
            for event in person.record.events:
                event.at -= offset

    def _publisher(self, i: int, rate: float) -> Publisher:
        rng = random.Random(f"zim chaos publisher {self._plan.seed} {i}")
        world = World(self._uids, ROOMS, self._has_keys)
        return Publisher(self._fabric.http, world, self._numbers, self._history.pushes, self._clock, rng, rate)

    # -- what the schedule says

    def _do(self, operation: Operation) -> None:
        kind, target = operation.kind, operation.target
        if target.isdigit():
            self._do_to_client(kind, self._people[int(target)], operation.lasts_s)
        elif kind in ("kill", "twice", "term", "stop"):
            self._do_to_process(kind, target, operation.lasts_s)
        else:
            self._do_to_link(kind, target, operation.lasts_s)

    def _do_to_client(self, kind: str, person: Person, lasts_s: float) -> None:
        match kind:
            case "hop":
                person.hop()
            case "drop":
                person.drop()
            case "freeze":
                person.freeze(lasts_s)
            case "leave" if isinstance(person, Zim) and person.rooms:
                room = self._rng.choice(sorted(person.rooms))
                person.leave(room)
                self._later(lasts_s, lambda: person.join(room))

    def _do_to_process(self, kind: str, name: str, lasts_s: float) -> None:
        fabric = self._fabric
        how = {"stop": signal.SIGSTOP, "term": signal.SIGTERM}.get(kind, signal.SIGKILL)
        pid = fabric.pid(name)
        if not pid:
            self._say(f"           {name} does not run now")
            return
        fabric.signal(pid, how)
        self._note_kill(name, how)
        if kind == "stop":
            self._later(lasts_s, lambda: fabric.signal(pid, signal.SIGCONT))
        elif kind == "twice":

            def again() -> None:
                fabric.signal(fabric.pid(name) or pid, signal.SIGKILL)
                self._note_kill(name, signal.SIGKILL)

            self._later(lasts_s, again)

    def _note_kill(self, name: str, how: int) -> None:
        if name.startswith("router") and how == signal.SIGKILL:
            self._history.router_kills.append(self._clock())

    def _do_to_link(self, kind: str, name: str, lasts_s: float) -> None:
        link = self._fabric.links[name]
        match kind:
            case "cut":
                link.cut()
            case "stall":
                link.stall()
            case "stall-in" | "stall-out":
                link.stall(kind.removeprefix("stall-"))
            case "delay":
                link.delay(self._rng.choice((0.02, 0.1, 0.4)))
        self._later(lasts_s, link.heal)

    def _later(self, seconds: float, undo: Callable[[], object]) -> None:
        self._undoing.append(gevent.spawn_later(seconds, undo))

    # -- the end

    def _heal(self) -> None:
        self._say(f"{self._clock():7.2f} s  all is healed")
        gevent.killall([greenlet for greenlet in self._undoing if not greenlet.dead])
        for link in self._fabric.links.values():
            link.heal()
        for child in self._fabric.children():
            self._fabric.signal(child.pid, signal.SIGCONT)
        for person in self._people:
            person.thaw()
            if isinstance(person, Zim):
                person.join(self._rng.choice(ROOMS))

    def _settle(self, publisher: Publisher) -> None:
        """A last push to every stream, after which each client has everything: it is the last of its stream."""
        fabric, people = self._fabric, self._people
        with _tolerant(self._say):
            wait_until(lambda: all(fabric.pid(name) for name in fabric.names), "all nodes run", SETTLE_S)
            wait_until(lambda: all(person.is_online for person in people), "all clients are back", SETTLE_S)
        last: dict[str, int] = {}
        for stream in ("*", *(f"r:{room}" for room in ROOMS), *(f"u:{uid}" for uid in self._uids)):
            push = publisher.last(stream)
            if push.verdict != "accepted":
                self._say(f"no push to {stream} is accepted any more: {publisher.answers}")
            last[stream] = push.number
        with _tolerant(self._say):
            wait_until(lambda: not self._missing(last), "everybody has the last push of each stream", SETTLE_S)
        for person in people:
            if not person.is_online:
                person.record.events.append(Broken(self._clock(), "is not connected at the end"))
        if missing := self._missing(last):
            self._say(f"the last pushes did not reach: {missing[:SHOWN]}")

    def _missing(self, last: dict[str, int]) -> list[str]:
        return [
            f"{person.record.name} {stream}"
            for person in self._people
            for stream in person.streams
            if not person.has(stream, last[stream])
        ]

    def _report(self, publishers: Sequence[Publisher]) -> Report:
        history = self._history
        streams = sorted({stream for push in history.pushes for stream in push.streams})
        if self._backend.has("/api/streams/r:1"):
            logs = [self._backend.log(stream) for stream in streams]
            history.logs = [log for log in logs if log]
            if len(history.logs) < len(streams):
                self._say(f"only {len(history.logs)} of {len(streams)} streams can be read back")
        report = Report(history, checker.check(history))
        for publisher in publishers:
            report.answers += publisher.answers
        report.ledger, report.unbalanced = ledger(self._backend, history)
        report.crashes = crashes(self._fabric.log)
        return report


@contextlib.contextmanager
def _tolerant(say: Callable[[str], None]) -> Iterator[None]:
    """What does not come true is said, and judged by the checker."""
    try:
        yield
    except AssertionError as e:
        say(str(e))


def speaks_zim(fabric: ChaosFabric) -> bool:
    """Whether a comet answers an auth of version 3 in its own words."""
    address = next(iter(fabric.tcp.values()))
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), gevent.socket.create_connection((host, int(port)), timeout=5.0) as sock:
        sock.sendall(wire.packet(wire.AUTH, b'{"token":"1"}', 1))
        reader = wire.WireReader(is_ws=False)
        while data := sock.recv(4096):
            for said in reader.feed(data):
                return isinstance(said.body, dict) and "streams" in said.body
    return False


def ledger(backend: Backend, history: History) -> tuple[Counter[str] | None, list[str]]:
    """The sums over the receipts of all accepted pushes, and those that do not balance; None without receipts."""
    accepted = [push for push in history.pushes if push.verdict == "accepted" and push.push_id]
    if not accepted or backend.ask("GET", f"/api/pushes/{accepted[-1].push_id}").status != 200:
        return None, []
    sums: Counter[str] = Counter()
    wrong = []
    for push in accepted:
        answer = backend.ask("GET", f"/api/pushes/{push.push_id}")
        if answer.status == 404 and any(
            push.asked_at <= at < push.answered_at + FORGOTTEN_S for at in history.router_kills
        ):
            sums["forgotten"] += 1
            continue
        if answer.status != 200:
            wrong.append(f"push {push.number} ({push.push_id}) of {push.asked_at:.2f} s: {answer.status} {answer.json}")
            continue
        counts = {key: answer.json.get(key, 0) for key in ("targeted", "offline", *LEDGER)}
        sums.update(counts)
        if counts["targeted"] != sum(counts[key] for key in LEDGER) or counts["pending"]:
            wrong.append(f"push {push.number} ({push.push_id}) of {push.asked_at:.2f} s: {counts}")
    return sums, wrong


def crashes(log: str) -> list[str]:
    """What nodes said on their way out, beside what was done to them."""
    signs = ("Traceback", "Assertion failed", "given up", "greenlet failed")
    return [line for line in log.splitlines() if any(sign in line for sign in signs)]


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    pushes = report.history.pushes
    yield f"pushes: {dict(Counter(push.verdict for push in pushes))}; HTTP answers: {dict(report.answers)}"
    received = sum(type(e).__name__ == "Received" for c in report.history.clients for e in c.events)
    connected = sum(type(e).__name__ == "Connected" for c in report.history.clients for e in c.events)
    yield f"clients: {len(report.history.clients)}, connections: {connected}, received: {received}"
    for dialect in ("zim", "goim"):
        names = {client.name for client in report.history.clients if client.dialect == dialect}
        counts = checker.summary([f for f in report.findings if f.who in names])
        yield f"{dialect} clients: " + ", ".join(f"{kind} {count}" for kind, count in counts.items())
    counts = checker.summary([f for f in report.findings if f.who == "log"])
    yield f"log ({len(report.history.logs)} streams): " + ", ".join(f"{kind} {n}" for kind, n in counts.items())
    for finding in report.findings[:SHOWN]:
        yield f"  {finding}"
    if len(report.findings) > SHOWN:
        yield f"  … and {len(report.findings) - SHOWN} more"
    yield f"ledger: {dict(report.ledger) if report.ledger is not None else 'no receipts'}"
    yield from (f"  unbalanced: {text}" for text in report.unbalanced[:SHOWN])
    yield from (f"  crash: {text}" for text in report.crashes[:SHOWN])
    yield "every promise was kept" if report.is_good else "PROMISES WERE BROKEN"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit code 0 if every promise was kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=Plan.rate, help="pushes a second")
    parser.add_argument("--without", default="", help="kinds of nodes and operations to spare: router,freeze")
    parser.add_argument("--namespaces", action="store_true", help="nodes in network namespaces (root on Linux)")
    parser.add_argument("--keep", type=Path, help="a folder for the history, the topology, its data and its log")
    parser.add_argument("--check", type=Path, help="judge a saved history, run nothing")
    options = parser.parse_args(arguments)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    if options.check:
        history = load(options.check)
        report = Report(history, checker.check(history))
    else:
        without = tuple(filter(None, options.without.split(",")))
        plan = Plan(
            options.seed, options.seconds, rate=options.rate, without=without, has_namespaces=options.namespaces
        )
        folder = options.keep or Path(tempfile.mkdtemp(prefix="zim-chaos-"))
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "var").exists():
            parser.error(f"{folder} has the data of another run")
        report = run(plan, say, folder)
        save(report.history, folder / "history.json")
        say(f"history, log and data: {folder}")
    for line in lines(report):
        say(line)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())

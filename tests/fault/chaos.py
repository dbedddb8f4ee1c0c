"""Chaos on real processes: a seeded schedule of faults under numbered pushes, and a checker over what clients got.

    python -m tests.fault.chaos --seed 1 --seconds 60
    python -m tests.fault.chaos --seed 1 --seconds 600 --every 1 --kills 10     # as hard as it is judged
    python -m tests.fault.chaos --clients 4000 --rooms 300 --rate 20 --only rush,kill    # many who come back at once
    python -m tests.fault.chaos --rate 0                                        # near saturation
    python -m tests.fault.chaos --machines      # three machines: roads that are cut, late and lossy, power that fails

At the end everything is healed, a last push goes to every stream, and when it has come (or had the time to) the checker
looks for what is lost, twice, late, out of order, or where it should not be. `--check FILE` judges a saved history
again. Room 2 keeps few messages, room 3 is live only.
"""

from __future__ import annotations

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import argparse
import contextlib
import itertools
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent

from tests.fault import checker, disk
from tests.fault.backend import Backend
from tests.fault.balancer import balance, haproxy
from tests.fault.clients import Goim, Person, Zim
from tests.fault.databases import Databases
from tests.fault.disk import Disk, own_disk
from tests.fault.fabric import ChaosFabric, chaos_fabric
from tests.fault.faults import Faults
from tests.fault.history import Broken, History, load, save
from tests.fault.machine_faults import MachineFaults, Weather
from tests.fault.machines import MachinesFabric, has_clocks, machines_fabric, why_impossible
from tests.fault.namespaces import namespace_fabric
from tests.fault.publishers import BatchPublisher, Publisher, TrainPublisher, World
from tests.fault.report import SHOWN, Report, crashes, ledger, lines
from tests.fault.schedule import KINDS, Operation, schedule
from tests.fault.watch import Watch
from tests.harness import wait_until

SETTLE_S = 60.0  # for a client to get the last push, once all is healed
ARRIVALS_S = 100.0  # how many clients connect in a second, at least
BEAT_S = 3
PATIENT = 24  # publishers, where many wait for a machine that is away
AT_LAST = 100  # users' streams of one last push
IN_ROOMS = 10  # of one client, at most

FIRST_UID = 1000
BALANCER = "balancer"
SHORT, LIVE, SHORT_COUNT = "2", "3", 20
ROOM_CLASSES = f"""
[[room_class]]
name = "short"
rooms = ["{SHORT}"]
count = {SHORT_COUNT}
[[room_class]]
name = "live"
rooms = ["{LIVE}"]
count = 0
"""


@dataclass(frozen=True)
class Plan:
    """What a run consists of.

    Attributes:
        clients: of five, three speak zim's dialect, and of those every fourth has no memory; two are goim clients.
        rooms: how many there are.
        publishers: half of them push singly, a quarter in batches, a quarter over ZeroMQ.
        rate: pushes a second, over all publishers; 0 for as fast as they can.
        every_s, kills: how far faults are apart, and how often a minute a node is killed; 0 for as they are drawn.
        without: kinds of nodes and operations that are spared.
        has_namespaces: nodes in network namespaces, whose links swallow packets; else proxies. Linux, root.
        has_disk: the data is on a disk of its own, which is full and stands still at times. Linux, root.
        has_machines: a node of each kind on each of three machines, and a balancer in front of the logics. Linux, root.
        operations: what is done, instead of what the seed's schedule says.
        has_shared_log: with machines: PostgreSQL, its primary on one of them, and a standby on another.
        weather: of each road between machines: seconds that a packet takes, up to how many more, the part that is lost.
    """

    seed: int = 1
    seconds: float = 60.0
    clients: int = 20
    rooms: int = 3
    publishers: int = 8
    rate: float = 60.0
    every_s: float = 0.0
    kills: float = 0.0
    without: tuple[str, ...] = ()
    has_namespaces: bool = False
    has_disk: bool = False
    has_machines: bool = False
    has_shared_log: bool = False
    operations: tuple[Operation, ...] = ()
    weather: Weather = (0.001, 0.001, 0.002)


def run(plan: Plan, say: Callable[[str], None] = lambda line: None, folder: Path | None = None) -> Report:
    """One run on a fabric of its own.

    Args:
        say: is told what happens, line by line.
        folder: where the topology, its data and its log go; by default they are gone afterwards.
    """
    _raise_open_files()
    if plan.has_machines:
        return _run_on_machines(plan, say, folder)
    start = namespace_fabric if plan.has_namespaces else chaos_fabric
    counts = {"routers": 2, "logics": 2, "jobs": 2, "comets": 3}
    with contextlib.ExitStack() as stack:
        home = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mounted = stack.enter_context(own_disk(home / "var")) if plan.has_disk else None
        fabric = stack.enter_context(start(home, more=ROOM_CLASSES, is_verbose=True, **counts))
        return _Run(plan, fabric, mounted, say).run()


def _run_on_machines(plan: Plan, say: Callable[[str], None], folder: Path | None) -> Report:
    others = [BALANCER] if haproxy() else []
    more: dict[str, Any] = {"more": ROOM_CLASSES, "seed": plan.seed, "others": others, "is_verbose": True}
    if plan.has_shared_log:
        more["database"] = lambda machines: Databases([machines[f"machine-{n}"] for n in (1, 2, 3)], say)
    with machines_fabric(folder, **more) as fabric:
        if others:
            fabric.balanced[BALANCER] = balance(fabric.machines[BALANCER])
        return _Run(plan, fabric, None, say).run()


class _Run:
    def __init__(self, plan: Plan, fabric: ChaosFabric, mounted: Disk | None, say: Callable[[str], None]) -> None:
        self._plan, self._fabric, self._disk, self._say = plan, fabric, mounted, say
        self._history = History(plan.seed, kept={f"r:{SHORT}": SHORT_COUNT, f"r:{LIVE}": 0})
        self._began = time.monotonic()
        self._backend = Backend(fabric.http)
        self._uids = range(FIRST_UID, FIRST_UID + plan.clients)
        self._rooms = [str(number) for number in range(1, plan.rooms + 1)]
        self._people: list[Person] = []
        self._numbers = itertools.count(1)
        self._rng = random.Random(f"zim chaos run {plan.seed}")

    def _clock(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> Report:
        plan = self._plan
        fabric, machines = self._fabric, None
        groups = ["link" if plan.has_machines else "machine"] + ([] if self._disk else ["disk"])
        without = (*plan.without, *(kind for kind, of in KINDS.items() if of.group in groups))
        if not has_clocks():
            without = (*without, "clock")
        self._say(f"seed {plan.seed}, {plan.seconds} s; spared: {', '.join(without) or 'nothing'}")
        publishers: list[Publisher] = []
        faults: Faults | None = None
        beating = gevent.spawn(self._beat)
        try:
            self._connect()
            self._began_again()
            watch = Watch(self._fabric, self._history, self._clock)
            if isinstance(fabric, MachinesFabric):
                machines = MachineFaults(fabric, self._history, self._clock, plan.weather)
            faults = Faults(fabric, self._disk, self._people, self._history, self._clock, self._say, machines)
            publishers = [self._publisher(i) for i in range(plan.publishers)]
            hosts = fabric.hosts if isinstance(fabric, MachinesFabric) else ()
            spec = (plan.seed, plan.seconds, plan.clients, fabric.names, without, plan.every_s, plan.kills, hosts)
            for operation in plan.operations or schedule(*spec):
                gevent.sleep(max(0.0, operation.at_s - self._clock()))
                self._say(str(operation))
                faults.do(operation)
            gevent.sleep(max(0.0, plan.seconds - self._clock()))
            self._say(f"{self._clock():7.2f} s  all is healed")
            faults.heal()
            for person in self._people:
                if isinstance(person, Zim):
                    person.join(self._rng.choice(self._rooms))
            gevent.joinall([gevent.spawn(publisher.stop) for publisher in publishers], raise_error=True)
            self._settle(publishers[0])
            watch.stop()
        finally:
            beating.kill()
            if faults:
                faults.stop()
            for one in publishers:
                one.kill()
            for person in self._people:
                person.stop()
        try:
            return self._report(publishers, watch)
        finally:
            self._backend.close()

    def _beat(self) -> None:
        for second in itertools.count():
            gevent.sleep(1.0)
            for person in self._people if second % BEAT_S == 0 else []:
                person.beat()
            if self._plan.has_shared_log:  # shards move at any time: live-only streams begin anew, receipts are gone
                self._history.router_ends.append(self._clock())
                self._history.router_kills.append(self._clock())

    # -- setting up

    def _connect(self) -> None:
        fabric, seed = self._fabric, str(self._plan.seed)
        for i, uid in enumerate(self._uids):
            is_ws = i // 5 % 2 == 1
            addresses, wire = (fabric.ws, "ws") if is_ws else (fabric.tcp, "tcp")
            if i % 5 < 3:
                has_memory = i % 4 != 0
                rooms = set(self._rng.sample(self._rooms, self._rng.randint(1, min(IN_ROOMS, len(self._rooms)))))
                name = f"zim-{uid}-{wire}{'' if has_memory else '-without-memory'}"
                self._people.append(Zim(name, uid, addresses, is_ws, self._clock, seed, rooms, has_memory))
            else:
                self._people.append(Goim(f"goim-{uid}-{wire}", uid, addresses, is_ws, self._clock, seed))
        self._history.clients = [person.record for person in self._people]
        patience_s = SETTLE_S + len(self._people) / ARRIVALS_S
        wait_until(lambda: all(person.is_whole for person in self._people), "all clients are there", patience_s)

    def _began_again(self) -> None:
        """Time 0 is when the schedule starts; what came before keeps its order, below it."""
        offset = self._clock()
        self._began += offset
        for person in self._people:
            for event in person.record.events:
                event.at -= offset

    def _publisher(self, i: int) -> Publisher:
        plan, fabric = self._plan, self._fabric
        rng = random.Random(f"zim chaos publisher {plan.seed} {i}")
        world = World(self._uids, self._rooms, has_keys=True, live=(f"r:{LIVE}",), is_varied=True)
        http = fabric.balanced if fabric.balanced and i % 8 < 5 else fabric.http
        args = (http, world, self._numbers, self._history.pushes, self._clock, rng, plan.rate / plan.publishers)
        if i % 4 == 2:
            return BatchPublisher(*args)
        if i % 4 == 3:
            logics = list(fabric.publish)
            name = logics[i // 4 % len(logics)]
            return TrainPublisher(fabric.publish[name], fabric.server_keys.get(name, ""), *args)
        return Publisher(*args)

    # -- the end

    def _settle(self, publisher: Publisher) -> None:
        """A last push to every stream, after which each client has everything: it is the last of its stream."""
        fabric, people = self._fabric, self._people
        with _tolerant(self._say):
            wait_until(lambda: all(fabric.pid(name) for name in fabric.names), "all nodes run", SETTLE_S)
            wait_until(lambda: all(person.is_whole for person in people), "all clients are back", SETTLE_S)
        last: dict[str, int] = {}
        users = [f"u:{uid}" for uid in self._uids]
        some = [tuple(users[i : i + AT_LAST]) for i in range(0, len(users), AT_LAST)]
        for streams in (("*",), *((f"r:{room}",) for room in self._rooms), *some):
            push = publisher.last(*streams)
            if push.verdict != "accepted":
                self._say(f"no push to {', '.join(streams)} is accepted any more: {publisher.answers}")
            last |= dict.fromkeys(streams, push.number)
        with _tolerant(self._say):
            wait_until(
                lambda: next(self._missing(last), None) is None, "everybody has the last push of each stream", SETTLE_S
            )
        for person in people:
            if not person.is_online:
                person.record.events.append(Broken(self._clock(), "is not connected at the end"))
        if missing := list(itertools.islice(self._missing(last), SHOWN)):
            self._say(f"the last pushes did not reach: {missing}")

    def _missing(self, last: dict[str, int]) -> Iterator[str]:
        for person in self._people:
            for stream in person.streams:
                if not person.has(stream, last[stream]):
                    yield f"{person.record.name} {stream}"

    def _report(self, publishers: Sequence[Publisher], watch: Watch) -> Report:
        history = self._history
        streams = sorted({stream for push in history.pushes for stream in push.streams})
        logs = [self._backend.log(stream) for stream in streams]
        history.logs = [log for log in logs if log]
        if len(history.logs) < len(streams):
            self._say(f"only {len(history.logs)} of {len(streams)} streams can be read back")
        report = Report(history, checker.check(history), watched=list(watch.lines()), unbounded=watch.wrong())
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


def _raise_open_files() -> None:
    """As many as this process may have: each client, and each connection through a proxy, is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def parser() -> argparse.ArgumentParser:
    """The command line. Its help says what is done."""
    whom = {"process": "node", "link": "node's links", "client": "client", "fabric": "fabric", "disk": "disk (root)"}
    whom |= {"machine": "machine (--machines)"}
    kinds = "\n".join(f"  {kind:<10} {whom[of.group]}: {of.text}" for kind, of in KINDS.items())
    made = argparse.ArgumentParser(
        prog="python -m tests.fault.chaos",
        description=__doc__,
        epilog=f"what is done:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--seed", type=int, default=Plan.seed)
    made.add_argument("--seconds", type=float, default=Plan.seconds)
    made.add_argument("--every", type=float, default=Plan.every_s, help="seconds between two faults; 0 for mixed")
    made.add_argument("--kills", type=float, default=Plan.kills, help="nodes killed a minute; 0 for as it comes")
    made.add_argument("--rate", type=float, default=Plan.rate, help="pushes a second; 0 for as fast as they go")
    made.add_argument("--clients", type=int, default=Plan.clients)
    made.add_argument("--rooms", type=int, default=Plan.rooms, help="at least 3")
    made.add_argument("--without", default="", help="kinds of nodes and operations to spare: router,freeze")
    made.add_argument("--only", default="", help="kinds of operations to do, and no others: rush,kill")
    made.add_argument("--namespaces", action="store_true", help="nodes in network namespaces (root on Linux)")
    made.add_argument("--machines", action="store_true", help="nodes on three machines (root on Linux)")
    made.add_argument("--shared", action="store_true", help="on machines, with a log on PostgreSQL")
    weather = "of each road between machines: seconds that a packet takes, up to how many more, the part that is lost"
    made.add_argument("--weather", type=float, nargs=3, default=Plan.weather, metavar="N", help=weather)
    made.add_argument("--keep", type=Path, help="a folder for the history, the topology, its data and its log")
    made.add_argument("--check", type=Path, help="judge a saved history, run nothing")
    return made


def _spared(without: str, only: str) -> tuple[str, ...]:
    """Kinds of nodes and of operations, from two lists with commas."""
    is_done = only.split(",") if only else list(KINDS)
    return (*filter(None, without.split(",")), *(kind for kind in KINDS if kind not in is_done))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit code 0 if every promise was kept."""
    options = parser().parse_args(arguments)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    if options.check:
        history = load(options.check)
        report = Report(history, checker.check(history))
    else:
        plan = Plan(
            options.seed,
            options.seconds,
            max(options.clients, 5),
            max(options.rooms, 3),
            PATIENT if options.machines or options.shared else Plan.publishers,
            options.rate,
            every_s=options.every,
            kills=options.kills,
            without=_spared(options.without, options.only),
            has_namespaces=options.namespaces,
            has_disk=disk.is_possible() and not (options.machines or options.shared),
            has_machines=options.machines or options.shared,
            has_shared_log=options.shared,
            weather=tuple(options.weather),
        )
        if (options.machines or options.shared) and (why := why_impossible()):
            parser().error(why)
        folder = options.keep or Path(tempfile.mkdtemp(prefix="zim-chaos-"))
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "topology.toml").exists():
            parser().error(f"{folder} has the data of another run")
        report = run(plan, say, folder)
        save(report.history, folder / "history.json")
        say(f"history, log and data: {folder}")
    for line in lines(report):
        say(line)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())

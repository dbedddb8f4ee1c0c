"""A short run of the chaos test; everything killed at once; publishers that push as fast as they can."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import gevent

from tests.fault.backend import Backend
from tests.fault.chaos import Plan, run
from tests.fault.checker import check
from tests.fault.clients import Goim, Person, Zim
from tests.fault.fabric import ChaosFabric, chaos_fabric
from tests.fault.history import Acknowledged, Asked, Closed, History, Joined, Push
from tests.fault.publishers import Publisher, World
from tests.fault.report import lines
from tests.harness import wait_until

UIDS = tuple(range(1000, 1006))


@contextmanager
def clients(fabric: ChaosFabric, history: History, dialects: Sequence[type[Person]]) -> Iterator[list[Person]]:
    """Clients in room 1, one a dialect, over all comets, half of them WebSocket, for the length of a block."""
    people: list[Person] = []
    for i, (uid, dialect) in enumerate(zip(UIDS, dialects, strict=False)):
        addresses = fabric.ws if i % 2 else fabric.tcp
        comet = list(addresses)[i // 2 % len(addresses)]
        args = (f"{dialect.dialect}-{uid}", uid, {comet: addresses[comet]}, bool(i % 2), time.monotonic, "seed")
        people.append(Zim(*args, {"1"}) if dialect is Zim else dialect(*args))
    history.clients = [person.record for person in people]
    try:
        wait_until(lambda: all(person.is_online for person in people), "all clients are there")
        yield people
    finally:
        for person in people:
            person.stop()


@contextmanager
def publishers(
    fabric: ChaosFabric, history: History, count: int, rate: float, world: World
) -> Iterator[list[Publisher]]:
    """That many, who share a rate (0: none), for the length of a block."""
    numbers = itertools.count(1)
    pushing = [
        Publisher(fabric.http, world, numbers, history.pushes, time.monotonic, random.Random(i), rate / count)
        for i in range(count)
    ]
    try:
        yield pushing
    finally:
        for publisher in pushing:
            publisher.kill()


def stop(pushing: Sequence[Publisher]) -> None:
    """Lets all of them finish."""
    gevent.joinall([gevent.spawn(publisher.stop) for publisher in pushing], raise_error=True)


def accepted(history: History) -> list[Push]:
    return [push for push in history.pushes if push.verdict == "accepted"]


def everybody_has(people: Sequence[Person], last: dict[str, Push]) -> None:
    """Waits until the last pushes have come to all whom they are for."""
    assert {push.verdict for push in last.values()} == {"accepted"}
    for person in people:
        for stream in set(person.streams) & set(last):
            number = last[stream].number
            wait_until(lambda p=person, s=stream, n=number: p.has(s, n), f"{person.record.name} has {stream}", 60)  # type: ignore[misc]


def test_a_short_run() -> None:
    """Of this seed's faults none needs root: two comets and more die, the log is not read, Ctrl-Z, a pair is cut."""
    said: list[str] = []
    report = run(Plan(seed=260, seconds=12, every_s=0.6, kills=20), said.append)
    told = "\n".join([*said, *lines(report)])
    assert report.is_good, told
    assert {finding.stream for finding in report.findings} <= {"r:2", "r:3"}, told  # that keep little, or nothing
    assert report.ledger is not None
    history = report.history
    assert len(history.logs) > len(history.clients)
    for kind in (Asked, Acknowledged, Joined, Closed):
        assert any(isinstance(event, kind) for client in history.clients for event in client.events), kind
    accepted = [push for push in history.pushes if push.verdict == "accepted"]
    assert any(push.ttl_s for push in accepted)
    assert {push.train.split()[0] for push in accepted if push.train} == {"batch", "ZeroMQ"}
    assert report.answers[422] == sum(push.verdict == "refused" for push in history.pushes if push.reuses) > 0


def test_everything_is_killed_at_once() -> None:
    """In the middle of 1,000 pushes a second: every push that got a success is there, once, with contiguous offsets."""
    history = History()
    with chaos_fabric(has_links=False, routers=2, logics=2, jobs=2, comets=3) as fabric:
        world = World(UIDS, ("1", "2"), has_keys=True)
        with (
            clients(fabric, history, [Zim] * len(UIDS)) as people,
            publishers(fabric, history, 32, 1000, world) as pushing,
        ):
            wait_until(lambda: len(accepted(history)) > 2000, "2,000 are accepted")
            fabric.kill_all()
            before = len(accepted(history))
            fabric.start()
            wait_until(lambda: len(accepted(history)) > before + 1000, "1,000 more are accepted")
            stop(pushing)
            streams = sorted({stream for push in history.pushes for stream in push.streams})
            last = {stream: pushing[0].last(stream) for stream in streams}
            everybody_has(people, last)
        backend = Backend(fabric.http)
        for stream in streams:
            log = backend.log(stream)
            assert log, f"{stream} cannot be read"
            history.logs.append(log)
        backend.close()
    assert any(push.attempts > 1 and push.verdict == "accepted" for push in history.pushes), "nobody noticed"
    assert check(history) == []


def test_publishers_as_fast_as_they_can() -> None:
    """64 of them, one room: what HTTP accepts every member gets, or the publisher is told 503."""
    history = History()
    roomy = {"outbox_bytes": 256 << 20}  # it is about the fabric, not about how fast this process reads
    with chaos_fabric(has_links=False, routers=2, logics=2, jobs=2, comets=3, comet=roomy) as fabric:
        world = World(UIDS, ("1",), has_keys=False, weights=(0, 0, 1, 0, 0))
        with (
            clients(fabric, history, [Goim] * len(UIDS)) as people,
            publishers(fabric, history, 64, 0, world) as pushing,
        ):
            wait_until(lambda: len(accepted(history)) > 10_000, "10,000 are accepted", 90.0)
            stop(pushing)
            everybody_has(people, {"r:1": pushing[0].last("r:1")})
    assert {push.verdict for push in history.pushes} <= {"accepted", "refused"}
    assert all(not any(type(e).__name__ == "Closed" for e in client.events) for client in history.clients)
    assert check(history) == []

"""The steps of a schedule, and what each one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.disk import EVERYTHING
from tests.simulation.layout import Layout
from tests.simulation.nodes import RouterNode
from tests.simulation.world import World
from zim.fabric.retention import Rule
from zim.nodes.router.feed import Feed
from zim.protocol.messages import Begin, Changes, Renew

NUMBERS = [1, 1_000, (1 << 40) - 1, (1 << 52) - 1]  # how far ahead a forged number is

# What a stranger on the links may say in the name of a comet.
FORGERIES: dict[str, Callable[[Feed, int, int], Any]] = {
    "begin": lambda f, term, n: Changes(f.shard, f.comet, f.inc, term, [Begin(f.applied + 1, n)]),
    "later begin": lambda f, term, n: Changes(f.shard, f.comet, f.inc, term, [Begin(f.applied + n, 1)]),
    "run": lambda f, term, n: Changes(f.shard, f.comet, f.inc + n, term, [Begin(1, 1 << 40)]),
    "renew": lambda f, term, n: Renew(f.shard, f.comet, f.inc, term, f.renewed + n, 0),
}

TRIM_S = 0.5  # how long a router keeps less, for a schedule's sake


@dataclass(frozen=True)
class Op:
    """One step of a schedule."""

    at: float
    verb: str
    args: tuple[Any, ...]


def do(world: World, op: Op) -> None:
    """Plays one step."""
    a = op.args
    if op.verb in ("push", "crowd", "steal", "submit"):
        getattr(world.publisher if op.verb == "submit" else world.backend, op.verb)(*a)
    elif op.verb in ("ban", "lift", "kick", "give"):
        getattr(world.authority, op.verb)(*a)
    elif op.verb in ("move", "hop", "acknowledge", "forget", "gather", "look_back"):
        person = world.people[a[0]]
        if op.verb == "look_back":
            person.look_back(*a[1:])
        elif op.verb in ("hop", "gather"):
            getattr(person, op.verb)(a[1])
        elif person.wire is not None:
            getattr(person, op.verb)()
    elif op.verb == "stop":
        world.stop(*a)
    elif op.verb in _FAULTS:
        _FAULTS[op.verb](world, *a)
    else:
        _disk(world, op)


def _cut(world: World, src: str, dst: str, for_s: float, ways: int) -> None:
    for pair in ((src, dst), (dst, src))[:ways]:
        world.kernel.cut(*pair, for_s)


def _lose(world: World, how_likely: float, for_s: float) -> None:
    world.kernel.loss = how_likely
    world.kernel.after(for_s, lambda: setattr(world.kernel, "loss", 0.0))


def _slow(world: World, who: int, for_s: float) -> None:
    """A client does not read for a while."""
    wire = world.people[who].wire
    if wire is not None:
        wire.reads = False
        world.kernel.after(for_s, lambda: None if wire.is_closed else wire.drain())


def _forge(world: World, comet: str, router: str, kind: str, number: int) -> None:
    """A router is told something in the name of a comet, with a number that is far ahead. Who told it hears the answer,
    not the comet."""
    node, victim = world.kernel.nodes[router], world.kernel.nodes[comet]
    assert isinstance(node, RouterNode)
    if all(n.is_up and not n.is_stopped for n in (node, victim)):
        shard = node.runner.shard
        if (feed := shard.directory.feeds.get(comet)) is not None:
            node.receive(comet, -1, FORGERIES[kind](feed, shard.term, number))


def _restore(world: World, name: str, back_s: float) -> None:
    """A backup is made, and comes back later."""
    router = world.kernel.nodes[name]
    assert isinstance(router, RouterNode)
    if router.disk.is_writing:
        world.kernel.after(0.01, lambda: _restore(world, name, back_s))
        return
    backup = router.disk.back_up()

    def come_back() -> None:
        if backup[0].epoch == router.disk.store.epoch:
            _kill(world, name, 0.3)
            world.restore(router, backup)

    world.kernel.after(back_s, come_back)


def _differ(world: World, name: str, kind: str, count: int, for_s: float) -> None:
    """A node is started with another topology than the others, and then with the right one. One at a time."""
    kernel = world.kernel
    node = kernel.nodes[name]
    if any(other.layout != kernel.layout for other in kernel.nodes.values()):
        return

    def start(layout: Layout) -> None:
        node.layout = layout
        _kill(world, name, 0.01)

    start(kernel.layout.but(kind, count))
    kernel.after(for_s, lambda: start(kernel.layout))


def _kill(world: World, name: str, for_s: float) -> None:
    if world.kernel.kill(name):
        world.saw_end(name)
        world.kernel.after(for_s, lambda: world.kernel.start(name))


_FAULTS: dict[str, Callable[..., None]] = {
    "kill": _kill,
    "cut": _cut,
    "lose": _lose,
    "slow": _slow,
    "forge": _forge,
    "restore": _restore,
    "differ": _differ,
}


def _disk(world: World, op: Op) -> None:
    router = world.kernel.nodes[op.args[0]]
    assert isinstance(router, RouterNode)
    if op.verb == "full":
        router.disk.is_full = True
        world.kernel.after(op.args[1], lambda: setattr(router.disk, "is_full", False))
    elif op.verb == "clock":
        if world.key_window_s > 2 * 3_600:  # else the hour that a start may take is longer than keys are known
            router.disk.clock_off_s = op.args[1]
            world.is_clock_wrong = True
    elif op.verb == "unsure":
        router.disk.store.failures.append(op.args[1])
    elif op.verb == "trim":
        world.is_trimmed = True
        router.disk.retention.keeps = Rule(op.args[1], 1e6) if op.args[1] else Rule(1, 1e-3)
        world.kernel.after(TRIM_S, lambda: setattr(router.disk.retention, "keeps", EVERYTHING))

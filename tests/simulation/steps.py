"""The steps of a schedule, and what each one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.disk import EVERYTHING
from tests.simulation.layout import Layout
from tests.simulation.nodes import CometNode
from tests.simulation.router import RouterNode
from tests.simulation.world import World
from zim.fabric.retention import Rule
from zim.nodes.router.feed import Feed
from zim.protocol.messages import Begin, Changes, Renew

NUMBERS = [1, 1_000, (1 << 40) - 1, (1 << 52) - 1]  # how far ahead a forged number is

# What a stranger on the links may say in the name of a comet.
FORGERIES: dict[str, Callable[[str, Feed, int, int], Any]] = {
    "begin": lambda s, f, term, n: Changes(s, f.comet, f.inc, term, [Begin(f.applied + 1, n)]),
    "later begin": lambda s, f, term, n: Changes(s, f.comet, f.inc, term, [Begin(f.applied + n, 1)]),
    "run": lambda s, f, term, n: Changes(s, f.comet, f.inc + n, term, [Begin(1, 1 << 40)]),
    "renew": lambda s, f, term, n: Renew(s, f.comet, f.inc, term, f.renewed + n, 0),
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
    if op.verb in ("kill", "stop", "cut"):  # whoever owns a shard now
        a = tuple(world.owner_of(arg) if isinstance(arg, str) and arg in world.vaults else arg for arg in a)
        if "" in a:
            return
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
    elif op.verb in ("stop", "grow"):
        getattr(world, op.verb)(*a)
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
        for runner in node.shards[:1]:
            shard = runner.shard
            if (feed := shard.directory.feeds.get(comet)) is not None:
                node.receive(comet, -1, FORGERIES[kind](shard.name, feed, shard.term, number))


def _restore(world: World, name: str, back_s: float) -> None:
    """A backup is made, and comes back later."""
    router = world.kernel.nodes[name]
    assert isinstance(router, RouterNode)
    vault = world.vaults[name]
    if any(disk.is_writing for disk in router.disks.values()):
        world.kernel.after(0.01, lambda: _restore(world, name, back_s))
        return
    backup = vault.back_up()

    def come_back() -> None:
        if backup[0].epoch == vault.store.epoch:
            _kill(world, name, 0.3)
            world.restore(router, backup)

    world.kernel.after(back_s, come_back)


def _differ(world: World, name: str, kind: str, count: int, for_s: float) -> None:
    """A node is started with another topology than the others, and then with the right one. One at a time."""
    kernel = world.kernel
    node = kernel.nodes[name]
    if any(other.file != kernel.layout for other in kernel.nodes.values()):
        return

    def start(layout: Layout) -> None:
        node.file = layout
        _kill(world, name, 0.01)

    start(kernel.layout.but(kind, count))
    kernel.after(for_s, lambda: start(kernel.layout))


def _kill(world: World, name: str, for_s: float) -> None:
    if world.kernel.kill(name):
        world.saw_end(name)
        world.kernel.after(for_s, lambda: world.kernel.start(name))


def _empty(world: World, name: str, per_s: float, away_s: float) -> None:
    """A comet sends its clients to others, ends, and is back later."""
    comet = world.kernel.nodes[name]
    assert isinstance(comet, CometNode)
    if comet.is_up and not comet.is_stopped and not comet.is_leaving:
        others = [other for other in world.kernel.layout.comets if other != name]
        comet.drain(per_s, dict.fromkeys(others, 1.0), away_s)


_FAULTS: dict[str, Callable[..., None]] = {
    "kill": _kill,
    "cut": _cut,
    "lose": _lose,
    "slow": _slow,
    "forge": _forge,
    "restore": _restore,
    "differ": _differ,
    "empty": _empty,
}


def _out(world: World, for_s: float, clock_s: float) -> None:
    """The engine of a shared log fails over."""
    engine = world.kernel.engine
    engine.out_until, engine.clock_s = world.kernel.now + for_s, clock_s


def _engine_slow(world: World, for_s: float) -> None:
    world.kernel.engine.slow_until = world.kernel.now + for_s


def _lose_engine(world: World, router: str, for_s: float) -> None:
    """A router does not reach the engine."""
    world.kernel.engine.cut_off[router] = world.kernel.now + for_s


def _drain(world: World, name: str, away_s: float) -> None:
    """A router gives away what it has, ends, and is started again."""
    router = world.kernel.nodes[name]
    assert isinstance(router, RouterNode)
    if router.is_up and not router.is_stopped:
        router.perform(router.runner.drain(router.now))
        run = router.run
        world.kernel.after(2.5, lambda: _end(world, router, run, away_s))


def _end(world: World, router: RouterNode, run: int, away_s: float) -> None:
    if router.run == run and router.is_up and not router.is_stopped:
        router.perform(router.runner.last_words(router.now))
        world.kernel.after(0.05, lambda: _kill(world, router.name, away_s) if router.run == run else None)


def _disk(world: World, op: Op) -> None:
    if op.verb in _ENGINE and world.kernel.engine is not None:
        _ENGINE[op.verb](world, *op.args)
    if op.verb in _ENGINE:
        return
    router = world.kernel.nodes[op.args[0]]
    assert isinstance(router, RouterNode)
    vaults = [world.vaults[shard] for shard in world.vaults if world.owner_of(shard) == router.name]
    # else the hour that a start may take is longer than keys are known
    if op.verb == "clock" and world.key_window_s > 2 * 3_600:
        router.clock_off_s = op.args[1]
        world.is_clock_wrong = True
    for vault in vaults:
        if op.verb == "full" and vault.engine is None:
            vault.is_full = True
            world.kernel.after(op.args[1], lambda vault=vault: setattr(vault, "is_full", False))  # type: ignore[misc]
        elif op.verb == "unsure":
            vault.store.failures.append(op.args[1])
        elif op.verb == "trim":
            world.is_trimmed = True
            vault.retention.keeps = Rule(op.args[1], 1e6) if op.args[1] else Rule(1, 1e-3)
            keep = vault.retention
            world.kernel.after(TRIM_S, lambda keep=keep: setattr(keep, "keeps", EVERYTHING))  # type: ignore[misc]


_ENGINE: dict[str, Callable[..., None]] = {
    "out": _out,
    "engine slow": _engine_slow,
    "cut off": _lose_engine,
    "drain": _drain,
}

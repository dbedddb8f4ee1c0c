"""Schedules of pushes and faults: made from a seed, played, and shrunk when they end badly."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tests.simulation.disk import LIVE, STREAMS, is_live
from tests.simulation.kernel import Violation
from tests.simulation.layout import KINDS, USUAL, Layout
from tests.simulation.limits import are_small, small_limits
from tests.simulation.quotas import TIGHT
from tests.simulation.steps import FORGERIES, NUMBERS, Op, do
from tests.simulation.world import CHAOS_S, World
from zim.fabric.ceilings import NO_CEILINGS
from zim.fabric.sharding import rank

OTHERS = {"router": ["router", "comet", "job"], "comet": ["router", "logic"], "logic": ["router"], "job": ["comet"]}

PROFILES: dict[str, tuple[str, ...]] = {
    "calm": (),
    "loss": ("lose", "cut", "cut"),
    "crash": ("kill", "kill", "kill", "cut"),
    "clocks": ("clock", "clock", "kill router", "cut"),
    "pause": ("stop", "stop", "lose", "held"),
    "disk": ("full", "unsure", "trim", "kill router", "trim", "stop", "herd"),
    "slow": ("slow", "slow", "stop", "burst", "cut"),
    "stale": (
        "kill router",
        "kill comet",
        "stop job",
        "stop comet",
        "stop router",
        "late",
        "untold",
        "held",
        "forgotten",
    ),
    "fence": ("kill comet", "kill comet", "cut", "moves"),
    "forged": ("forge", "forge", "forge", "kill router", "cut", "stop comet"),
    "retention": ("trim", "trim", "trim", "trim", "stop comet", "kill router", "cut"),
    "restored": ("restore", "restore", "kill router", "cut", "stop comet"),
    "differ": ("differ", "differ", "differ", "kill", "cut"),
    "people": (
        "ban",
        "ban",
        "lift",
        "kick",
        "kick",
        "give",
        "away",
        "kill router",
        "kill comet",
        "cut",
        "stop comet",
        "lose",
    ),
    "huge": ("crowd", "crowd", "rooms", "rooms", "herd", "kill router", "kill comet"),
    "limits": ("burst", "burst", "herd", "kill router", "kill logic", "stop", "cut", "lose"),
    "shards": ("kill router", "kill router", "stop router", "stop router", "cut off", "cut", "kill comet"),
    "engine": ("out", "out", "engine slow", "cut off", "unsure", "kill router", "stop router"),
    "handover": ("drain", "drain", "drain", "kill router", "engine slow", "cut off", "stop comet", "burst"),
    "drains": ("empty", "empty", "empty", "stop comet", "cut", "kill router", "kill comet", "lose", "burst"),
    "growth": ("grow", "grow", "grow", "empty", "kill router", "kill comet", "stop", "cut", "lose", "burst"),
    "storm": (
        "lose",
        "cut",
        "kill",
        "kill",
        "stop",
        "stop",
        "full",
        "unsure",
        "trim",
        "slow",
        "burst",
        "herd",
        "clock",
    ),
}


_ON_SHARED = ("shards", "engine", "handover")  # always; of the others, those that know nothing of a router's disk
_ON_ITS_OWN = ("disk", "restored", "differ")
_WORLDS = {"huge": "charge", "limits": "limit"}  # what holds for all of a schedule


def make_plan(seed: int, profile: str) -> list[Op]:
    """The schedule of a seed."""
    rng = random.Random(f"{profile} {seed}")
    plan: list[Op] = []
    may_key = "differ" not in PROFILES[profile]  # a key has one home as long as all logics know the same routers
    layout = Layout(rng.choice([USUAL, tuple(rng.randint(1, 3) for _ in USUAL)]))
    if layout.counts != USUAL:
        plan.append(Op(0.0, "nodes", layout.counts))
    shares = random.Random(f"shared {profile} {seed}")
    if profile in _ON_SHARED or (profile not in _ON_ITS_OWN and shares.random() < 0.3):
        layout = Layout(layout.counts, shares.choice([1, 2, 3, 5]))
        plan.append(Op(0.0, "shards", (layout.n_shards,)))

    def when() -> float:
        return round(0.3 + (CHAOS_S - 0.3) * rng.random(), 3)

    def push(at: float, streams: list[str], is_keyed: bool) -> None:
        is_keyed &= may_key
        races = is_keyed and rng.random() < 0.3
        ttl_s = rng.choice([0.0] * 8 + [0.05, 1.0])
        aim = tuple(who for who in range(5) if rng.random() < 0.5) if rng.random() < 0.1 else ()
        args = f"p{len(plan)}", tuple(streams), is_keyed, rng.randrange(2), races, ttl_s, aim
        plan.append(Op(at, "push", args))

    streams = rng.choice([STREAMS, STREAMS, [LIVE, "*"], ["u:1", "r:b"]])
    for _ in range(int(CHAOS_S * rng.choice([2, 5, 12]))):
        push(when(), rng.sample(streams, min(len(streams), rng.choice([1, 1, 1, 2, 3]))), rng.random() < 0.4)
    for verb, most in (("move", 8), ("hop", 6), ("acknowledge", 8), ("forget", 3)):
        plan += [
            Op(when(), verb, (rng.randrange(5), rng.choice(["a", "b", "live", "lone"])))
            for _ in range(rng.randrange(most))
        ]
    for _ in range(rng.randrange(4)):  # out of a room and back at once
        at, who = when(), (rng.randrange(3), rng.choice(["a", "b"]))
        plan += [Op(at, "hop", who), Op(round(at + rng.choice([0.01, 0.03, 0.1]), 3), "hop", who)]
    for _ in range(rng.randrange(3)):  # a publisher that sends on without waiting
        at, gap, mine = when(), rng.choice([0.0, 0.001, 0.01]), rng.sample(streams, rng.choice([1, 2]))
        for i in range(rng.choice([5, 40])):
            args = (f"s{len(plan)}", (rng.choice(mine),), may_key and rng.random() < 0.3)
            plan.append(Op(round(at + gap * i, 3), "submit", args))
    faults = PROFILES[profile]
    plan += [Op(0.0, _WORLDS[profile], ())] if profile in _WORLDS else []
    for _ in range(rng.choice([1, 2, 4, 8]) if faults else 0):
        plan += _fault(rng, layout, rng.choice(faults), when(), push)
    keyed = [op for op in plan if op.verb == "push" and op.args[2]]
    for victim in rng.sample(keyed, min(len(keyed), rng.randrange(4))):  # its key is used for another push, too
        at = max(0.1, victim.at + rng.choice([-0.1, 0.0, 0.002, 0.01, 0.5, 3.0, 5.02, 5.05, 5.1, 5.3]))
        theirs = tuple(rng.sample(STREAMS, rng.choice([1, 2])))
        plan.append(Op(round(at, 3), "steal", (f"t{len(plan)}", victim.args[0], theirs, rng.randrange(2))))
    if profile == "people":
        plan += _looks(random.Random(f"looks {seed}"))
    return sorted(plan, key=lambda op: op.at)


def _looks(rng: random.Random) -> list[Op]:
    """People look back, at the history of their streams."""
    at = [round(0.3 + (CHAOS_S - 0.3) * rng.random(), 3) for _ in range(rng.randrange(20))]
    return [Op(when, "look_back", (rng.randrange(5), rng.randrange(4), rng.choice([0, 3, 20]))) for when in at]


def _moves(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """Everybody changes the comet at about the same time."""
    return [Op(round(at + 0.03 * i, 3), "move", (rng.randrange(5), "")) for i in range(8)]


def _burst(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """Many pushes within a moment."""
    for i in range(40):
        push(round(at + 0.01 * i, 3), [rng.choice(["r:a", "r:b", "u:1"])], rng.random() < 0.4)
    return []


def _herd(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """A router dies in a burst, and all that waited for it, kept or not, comes at once."""
    router = rng.choice(layout.routers)
    streams = [s for s in STREAMS if layout.shards.of(s) == router] or STREAMS
    for i in range(60):
        push(round(at + 0.01 * i, 3), [rng.choice(streams)], rng.random() < 0.7)
    return [Op(round(at + rng.choice([0.1, 0.2, 0.3]), 3), "kill", (router, rng.choice([0.2, 0.5])))]


def _held(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """A job stands still with entries of a comet, which loses its lease or dies, and is back."""
    comet, router = rng.choice(layout.comets), rng.choice(layout.routers)
    streams = [s for s in STREAMS if layout.shards.of(s) == router] or STREAMS
    for i in range(20):
        push(round(at + 0.02 * i, 3), [rng.choice(streams)], False)
    stop = Op(at, "stop", (rank(comet, layout.jobs)[0], 4.2))
    lost = rng.choice([("cut", (comet, router, 3.0, 2)), ("kill", (comet, 0.5))])
    return [stop, Op(round(at + 0.4, 3), *lost)]


def _away(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """Somebody is kicked while no router hears from a comet, for longer than its lease."""
    comet = rng.choice(layout.comets)
    ways = rng.choice([1, 2])
    cuts = [Op(at, "cut", (comet, router, 4.0, ways)) for router in layout.routers]
    return [*cuts, Op(round(at + 2.0, 3), "kick", (rng.choice(["1", "2", "3"]), rng.randrange(2)))]


def _late(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """A job has entries of a router that is another run by the time they come."""
    router, streams = rng.choice(layout.routers), rng.choice([["r:a", "r:b", "*"], [LIVE]])
    for i in range(30):
        push(round(at + 0.05 * i, 3), [rng.choice(streams)], False)
    stop = Op(at, "stop", (rng.choice(layout.jobs), 0.8))
    return [stop, Op(round(at + 0.3, 3), "kill", (router, 0.01))]


def _untold(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """A router dies between the first messages of a stream and its answer to who joined it."""
    owner, hop = layout.shards.of(LIVE), Op(at, "hop", (rng.randrange(1, 3), "live"))
    for i in range(5):
        push(round(at + 0.002 * i, 3), [LIVE], False)
    for i in range(5):
        push(round(at + 2.0 + 0.1 * i, 3), [LIVE], False)
    return [hop, Op(round(at + rng.choice([0.008, 0.012, 0.02]), 3), "kill", (owner, 0.01))]


def _clock(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """A router starts with a wall clock that is wrong, and once more with one that is right."""
    router, later = rng.choice(layout.routers), rng.choice([0.5, 2.0])
    wrong = Op(at, "clock", (router, rng.choice([-1e9, -3_600.0, 3e6, 3e8])))
    kills = [Op(round(at + 0.01, 3), "kill", (router, 0.01)), Op(round(at + later, 3), "kill", (router, 0.01))]
    return [wrong, Op(round(at + later - 0.1, 3), "clock", (router, 0.0)), *kills]


def _forgotten(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """The owner of a live-only stream dies with pushes whose keys are elsewhere, and their publishers ask again."""
    owner = layout.shards.of
    kept = [s for s in STREAMS if owner(s) != owner(LIVE)] or [s for s in STREAMS if not is_live(s)]
    for i in range(8):
        push(round(at + 0.01 * i, 3), [rng.choice(kept), LIVE], True)
    return [Op(round(at + rng.choice([0.03, 0.05, 0.08]), 3), "kill", (owner(LIVE), 0.01))]


def _crowd(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """A push to very many users."""
    return [Op(at, "crowd", (f"c{at}", rng.choice([500, 10_000]), rng.random() < 0.5, rng.randrange(2)))]


def _rooms(rng: random.Random, layout: Layout, at: float, push: Any) -> list[Op]:
    """Somebody joins very many rooms, and leaves them."""
    args = rng.randrange(3), rng.choice([50, 1_000])
    return [Op(at, "gather", args), Op(round(at + rng.choice([0.1, 1.0, 4.0]), 3), "gather", args)]


_STORIES: dict[str, Callable[[random.Random, Layout, float, Any], list[Op]]] = {
    "moves": _moves,
    "burst": _burst,
    "herd": _herd,
    "crowd": _crowd,
    "rooms": _rooms,
    "held": _held,
    "forgotten": _forgotten,
    "away": _away,
    "late": _late,
    "untold": _untold,
    "clock": _clock,
}


def _fault(rng: random.Random, layout: Layout, fault: str, at: float, push: Any) -> list[Op]:
    verb, _, kind = fault.partition(" ") if fault not in ("cut off", "engine slow") else (fault, "", "")
    node = rng.choice([n for n in layout if n.startswith(kind)])
    routers, comets, jobs = layout.routers, layout.comets, layout.jobs
    pairs = [(c, r) for c in comets for r in routers] + [(r, c) for c in comets for r in routers]
    pairs += [(r, j) for r in routers for j in jobs] + [(j, c) for j in jobs for c in comets]
    pairs += [(logic, r) for logic in layout.logics for r in routers]
    if verb in _STORIES:
        return _STORIES[verb](rng, layout, at, push)
    args: dict[str, tuple[Any, ...]] = {
        "kill": (node, rng.choice([0.01, 0.05, 0.5, 2.0, 4.0, 7.0])),
        "stop": (node, rng.choice([0.2, 0.8, 2.0, 3.5, 4.5, 7.5])),
        "cut": (*rng.choice(pairs), rng.choice([0.0, 0.3, 1.5, 4.0]), rng.choice([1, 2])),
        "lose": (rng.choice([0.05, 0.3]), rng.choice([0.5, 2.0, 5.0])),
        "full": (rng.choice(routers), rng.choice([0.05, 0.3, 2.0])),
        "unsure": (rng.choice(routers), rng.choice(["unknown, stored", "unknown, lost"])),
        "trim": (rng.choice(routers), rng.choice([0, 1, 5])),
        "out": (rng.choice([0.05, 0.5, 1.5, 3.0, 6.0]), rng.choice([0.0, -600.0, 600.0])),
        "cut off": (rng.choice(routers), rng.choice([0.5, 1.9, 2.5, 5.0])),
        "drain": (rng.choice(routers), rng.choice([0.1, 3.0])),
        "grow": (rng.choice(["comet", "job", "logic"] + ["router"] * bool(layout.n_shards)),),
        "empty": (rng.choice(comets), rng.choice([1.0, 4.0, 100.0]), rng.choice([0.05, 0.5, 3.0])),
        "slow": (rng.randrange(5), rng.choice([0.2, 1.0, 4.0])),
        "restore": (rng.choice(routers), rng.choice([0.05, 0.5, 2.0])),
        "differ": (node, rng.choice(OTHERS[node.partition("-")[0]]), rng.randint(1, 3), rng.choice([0.5, 3.0, 6.0])),
        "ban": (rng.choice(["1", "2", "3"]), rng.randrange(2)),
        "lift": (rng.choice(["1", "2", "3"]), rng.randrange(2)),
        "kick": (rng.choice(["1", "2", "3"]), rng.randrange(2)),
        "give": (rng.choice(["1", "2", "3"]), "vip", rng.random() < 0.5, rng.randrange(2)),
        "engine slow": (rng.choice([0.5, 3.0, 6.0]),),
        "forge": (rng.choice(comets), rng.choice(routers), rng.choice(list(FORGERIES)), rng.choice(NUMBERS)),
    }
    return [Op(at, verb, args[verb])]


def _is_possible(op: Op, layout: Layout) -> bool:
    """All nodes that it names are there: while a schedule shrinks they may be fewer."""
    named = {a for a in op.args if isinstance(a, str) and a.startswith(tuple(f"{kind}-" for kind in KINDS))}
    return named <= set(layout)


def run(seed: int, plan: list[Op], trace: bool = False) -> str:
    """Plays a schedule. Returns what it found wrong, or ""."""
    n_shards = next((op.args[0] for op in plan if op.verb == "shards"), 0)
    layout = Layout(next((op.args for op in plan if op.verb == "nodes"), USUAL), n_shards)
    charges = any(op.verb == "charge" for op in plan)
    limits = TIGHT if any(op.verb == "limit" for op in plan) else NO_CEILINGS
    plan = [op for op in plan if op.verb not in ("nodes", "shards", "charge", "limit") and _is_possible(op, layout)]
    with small_limits() if are_small(seed) and not charges else nullcontext():
        try:
            world = World(seed, layout, charges, trace, limits)
            for op in plan:
                world.kernel.after(op.at, lambda op=op: do(world, op))  # type: ignore[misc]
            world.kernel.go(max([CHAOS_S, *(op.at for op in plan)]))
            world.settle()
        except Violation as e:
            return str(e)
        except Exception as e:  # noqa: BLE001 whatever zim's code raises ends its node
            return f"{type(e).__name__}: {e}"
    return ""


def shrink(seed: int, plan: list[Op], tries: int = 400) -> tuple[int, list[Op]]:
    """Leaves out steps while something stays wrong; other seeds for the links may do it with less."""
    size = max(1, len(plan) // 2)
    tries //= 10 if any(op.verb == "charge" for op in plan) else 1  # each one takes long
    while size and tries:
        i = 0
        while i < len(plan) and tries:
            less = plan[:i] + plan[i + size :]
            for other in (seed, seed + 1, seed + 2):
                tries -= 1
                if run(other, less):
                    seed, plan = other, less
                    break
            else:
                i += size
        size //= 2
    return seed, plan


def save(file: Path, seed: int, plan: list[Op]) -> None:
    """Writes a schedule, so that it can be played again after the code that makes plans has changed."""
    file.write_text(json.dumps({"seed": seed, "plan": [[op.at, op.verb, op.args] for op in plan]}, indent=1))


def load(file: Path) -> tuple[int, list[Op]]:
    """A schedule that `save` wrote: the seed for the links, and the steps."""
    found = json.loads(file.read_text())
    return found["seed"], [Op(at, verb, _tuples(args)) for at, verb, args in found["plan"]]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value

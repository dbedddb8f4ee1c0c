"""Plays seeds of simulated weather over zim's own runners.

python -m tests.simulation --seeds 0:2000 --profile storm     many seeds, on all cores
python -m tests.simulation --seed 17                          one seed, in all profiles
python -m tests.simulation --seed 17 --profile storm --trace  message by message
python -m tests.simulation --seed 17 --save red.json          what fails is shrunk, and saved
python -m tests.simulation --replay red.json --trace          what was saved, again
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from tests.simulation.plans import PROFILES, load, make_plan, run, save, shrink
from tests.simulation.steps import Op

PART = 50  # seeds that one process plays before it tells what it found


def play(profile: str, first: int, last: int) -> list[tuple[int, str]]:
    """Seeds that ended badly, and how."""
    logging.disable(logging.CRITICAL)
    return [(seed, found) for seed in range(first, last) if (found := run(seed, make_plan(seed, profile)))]


def play_one(profile: str, seed: int, args: argparse.Namespace) -> bool:
    """One seed in one profile. Returns whether it is red."""
    plan = make_plan(seed, profile)
    found = run(seed, plan, args.trace)
    print(f"seed {seed} of {profile}: {found or 'green'}")
    if found:
        tell(profile, seed, found, not args.no_shrink, args.save)
    return bool(found)


def replay(file: Path, trace: bool) -> bool:
    """A schedule that was saved. Returns whether it is red."""
    seed, plan = load(file)
    show(plan)
    found = run(seed, plan, trace)
    print(f"{file}, with seed {seed}: {found or 'green'}")
    return bool(found)


def tell(profile: str, seed: int, found: str, shrinks: bool, file: Path | None = None) -> None:
    """What went wrong, and the shortest way to it."""
    print(f"  seed {seed} of {profile}: {found}", flush=True)
    less_seed, plan = shrink(seed, make_plan(seed, profile)) if shrinks else (seed, make_plan(seed, profile))
    if shrinks:
        print(f"  shrunk, with seed {less_seed}: {run(less_seed, plan)}")
        show(plan)
    if file is not None:
        save(file, less_seed, plan)
        print(f"  saved; again: python -m tests.simulation --replay {file} --trace")


def show(plan: list[Op]) -> None:
    """A schedule, step by step."""
    print(*(f"    {op}" for op in plan), sep="\n", flush=True)


def play_many(profiles: list[str], first: int, last: int, args: argparse.Namespace) -> bool:
    """Seeds in each profile, on several processes. Returns whether any is red."""
    is_red = False
    with ProcessPoolExecutor(args.processes) as pool:
        for profile in profiles:
            started = time.monotonic()
            starts = range(first, last, PART)
            parts = pool.map(play, repeat(profile), starts, [min(start + PART, last) for start in starts])
            red = [one for part in parts for one in part]
            rate = (last - first) / (time.monotonic() - started)
            print(f"{profile:>9}: {last - first} seeds, {len(red)} red, {rate:.0f} a second", flush=True)
            for seed, found in red[:3]:
                tell(profile, seed, found, not args.no_shrink)
            is_red |= bool(red)
    return is_red


def main() -> bool:
    """See the module. Returns whether anything is red."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:200", help="FROM:TO, or how many, of each profile")
    parser.add_argument("--seed", type=int, help="one seed, in each profile")
    parser.add_argument("--profile", default="all", help=f"comma-separated, of {', '.join(PROFILES)}")
    parser.add_argument("--trace", action="store_true", help="with --seed or --replay: message by message")
    parser.add_argument("--save", type=Path, metavar="FILE", help="with --seed: the schedule that fails")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a schedule that was saved")
    parser.add_argument("--no-shrink", action="store_true", help="a failing schedule stays as it is")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="as many as there are cores")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    profiles = list(PROFILES) if args.profile == "all" else args.profile.split(",")
    if unknown := set(profiles) - PROFILES.keys():
        parser.error(f"there is no profile {', '.join(sorted(unknown))}; there are {', '.join(PROFILES)}")
    if args.replay is not None:
        return replay(args.replay, args.trace)
    if args.seed is not None:
        return sum(play_one(profile, args.seed, args) for profile in profiles) > 0
    low, _, high = args.seeds.rpartition(":")
    return play_many(profiles, int(low or 0), int(high), args)


if __name__ == "__main__":
    sys.exit(main())

"""Plays seeds. `python -m tests.simulation --seeds 0:2000 --profile storm`, or one of them, `--seed 17 --trace`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from tests.simulation.plans import PROFILES, make_plan, run, shrink

PART = 50  # seeds that one process plays before it tells what it found


def play(profile: str, first: int, last: int) -> list[tuple[int, str]]:
    """Seeds that ended badly, and how."""
    logging.disable(logging.CRITICAL)
    return [(seed, found) for seed in range(first, last) if (found := run(seed, make_plan(seed, profile)))]


def play_one(profile: str, seed: int, trace: bool) -> int:
    """One seed, and its schedule."""
    plan = make_plan(seed, profile)
    found = run(seed, plan, trace)
    print(*plan, sep="\n")
    print(f"seed {seed} of {profile}: {found or 'green'}")
    return bool(found)


def tell(profile: str, seed: int, found: str, shrinks: bool) -> None:
    """What went wrong, and the shortest way to it."""
    print(f"  seed {seed} of {profile}: {found}", flush=True)
    if shrinks:
        less_seed, plan = shrink(seed, make_plan(seed, profile))
        print(f"  shrunk, with seed {less_seed}: {run(less_seed, plan)}")
        print(*(f"    {op}" for op in plan), sep="\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:200", help="FROM:TO, or how many")
    parser.add_argument("--seed", type=int, help="one seed: prints its schedule")
    parser.add_argument("--profile", default="all", help=f"comma-separated, of {', '.join(PROFILES)}")
    parser.add_argument("--trace", action="store_true", help="with --seed: message by message")
    parser.add_argument("--no-shrink", action="store_true", help="a failing schedule is shown as it is")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="as many as there are cores")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    profiles = list(PROFILES) if args.profile == "all" else args.profile.split(",")
    if args.seed is not None:
        return play_one(profiles[0], args.seed, args.trace)
    low, _, high = args.seeds.rpartition(":")
    first, last = int(low or 0), int(high)
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


if __name__ == "__main__":
    sys.exit(main())

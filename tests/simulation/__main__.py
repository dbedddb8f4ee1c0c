"""Plays seeds. `python -m tests.simulation --seeds 0:2000 --profile storm`, or one of them, `--seed 17 --trace`."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.simulation.plans import PROFILES, make_plan, run, shrink


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:200", help="FROM:TO, or how many")
    parser.add_argument("--seed", type=int, help="one seed: prints its schedule")
    parser.add_argument("--profile", default="all", help=f"comma-separated, of {', '.join(PROFILES)}")
    parser.add_argument("--trace", action="store_true", help="with --seed: message by message")
    parser.add_argument("--no-shrink", action="store_true", help="a failing schedule is shown as it is")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    profiles = list(PROFILES) if args.profile == "all" else args.profile.split(",")
    if args.seed is not None:
        plan = make_plan(args.seed, profiles[0])
        found = run(args.seed, plan, args.trace)
        print(*plan, sep="\n")
        print(f"seed {args.seed} of {profiles[0]}: {found or 'green'}")
        return bool(found)
    first, _, last = args.seeds.rpartition(":")
    is_red = False
    for profile in profiles:
        started, red = time.monotonic(), 0
        for seed in range(int(first or 0), int(last)):
            found = run(seed, make_plan(seed, profile))
            if found:
                red += 1
                print(f"  seed {seed} of {profile}: {found}", flush=True)
                if not args.no_shrink:
                    less_seed, plan = shrink(seed, make_plan(seed, profile))
                    print(f"  shrunk, with seed {less_seed}: {run(less_seed, plan)}")
                    print(*(f"    {op}" for op in plan), sep="\n", flush=True)
            if red >= 3:
                break
        count = seed - int(first or 0) + 1
        print(
            f"{profile:>9}: {count} seeds, {red} red, {count / (time.monotonic() - started):.0f} a second", flush=True
        )
        is_red |= red > 0
    return is_red


if __name__ == "__main__":
    sys.exit(main())

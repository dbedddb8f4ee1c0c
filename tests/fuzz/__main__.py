"""`make fuzz`: every target for its share of the time, and a table of what came of it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.hammer import GROWTH_BYTES, under_way, write_finding
from tests.fuzz.targets import ALL, TARGETS, file_name

PATIENCE_S = 30.0  # for a process that should have ended: to start, and for an input that hangs in C
LEAST_S = 1.0  # of a process's time


class Outcome(NamedTuple):
    """What came of one target. growth: of memory, in bytes; None where it was not measured."""

    target: str
    inputs: int
    seconds: float
    findings: dict[str, bytes]
    growth: int | None
    kept: int


def fuzz(target: str, seconds: float, seed: int, has_atheris: bool) -> Outcome:
    """One target for so many seconds: half of it with atheris, if that is there."""
    inputs, spent, kept, growth = 0, 0.0, 0, None
    findings: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for how in ("explore", "hammer") if has_atheris else ("hammer",):
            share = max(LEAST_S, seconds / 2 if has_atheris else seconds)
            died = _run(how, target, share, seed, folder)
            said = json.loads(file.read_text()) if (file := folder / f"{how}.json").exists() else {}
            inputs, spent = inputs + said.get("inputs", 0), spent + said.get("seconds", 0.0)
            findings |= {what: bytes.fromhex(text) for what, text in said.get("findings", {}).items()}
            growth, kept = said.get("growth", growth), said.get("kept", kept)
            if died:
                findings[f"{how}: {died}"] = under_way(folder / "under_way")
    if growth is not None and growth > GROWTH_BYTES:
        findings[f"memory grew by {growth >> 10} KiB"] = b""
    return Outcome(target, inputs, spent, findings, growth, kept)


def _run(how: str, target: str, seconds: float, seed: int, folder: Path) -> str:
    """Why it died; "" if it did not."""
    command = [sys.executable, "-m", "tests.fuzz.worker", how, target, str(seconds), str(seed), str(folder)]
    log = folder / f"{how}.log"
    with log.open("wb") as out:
        try:
            code = subprocess.run(command, stdout=out, stderr=out, timeout=seconds + PATIENCE_S, check=False).returncode
        except subprocess.TimeoutExpired:
            return "it does not end"
    if code == 0:
        return ""
    said = log.read_text(errors="replace").strip().splitlines() or ["nothing is said"]
    return f"the process died with {code}: {said[-1][:200]}"


def _table(outcomes: Sequence[Outcome]) -> str:
    lines = [f"{'target':30}{'inputs':>12}{'a second':>10}{'kept':>7}{'memory KiB':>12}{'findings':>10}"]
    for o in outcomes:
        memory = "?" if o.growth is None else f"{o.growth / 1024:+.0f}"
        a_second = o.inputs / o.seconds if o.seconds else 0
        lines.append(f"{o.target:30}{o.inputs:12,}{a_second:10,.0f}{o.kept:7}{memory:>12}{len(o.findings):10}")
    inputs, seconds = sum(o.inputs for o in outcomes), sum(o.seconds for o in outcomes)
    found = sum(len(o.findings) for o in outcomes)
    lines.append(f"{'all':30}{inputs:12,}{inputs / seconds if seconds else 0:10,.0f}{'':7}{'':12}{found:10}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 if anything was found."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all of it; each target gets 2 at least")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--only", action="append", default=[], metavar="TARGET", help="this one; may be given again")
    parser.add_argument("--found", type=Path, default=Path("found"), help="the folder for inputs that find something")
    parser.add_argument("--plain", action="store_true", help="without atheris, though it is there")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.only if name not in ALL]:
        parser.error(f"there is no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    names = options.only or list(TARGETS)
    seed = options.seed or time.time_ns() % (1 << 30)
    has_atheris = find_spec("atheris") is not None and not options.plain
    share = options.seconds * options.jobs / len(names)
    how = "with atheris, then without" if has_atheris else "without atheris: mutations alone, no coverage"
    print(f"{len(names)} targets, {share:.1f} s each, seed {seed}, {how}", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(lambda name: fuzz(name, share, seed, has_atheris), names))
    print(_table(outcomes))
    found = [(o.target, what, data) for o in outcomes for what, data in o.findings.items()]
    for target, what, data in found:
        print(f"FOUND {target}: {what}\n  in {write_finding(options.found, file_name(target), what, data)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

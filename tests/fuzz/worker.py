"""One target in a process of its own: `python -m tests.fuzz.worker HOW TARGET SECONDS SEED FOLDER`.

    explore   with atheris: what covers new lines is kept, in FOLDER/kept
    hammer    without it: what was kept and the corpus, mutated; memory is measured

It writes what came of it to FOLDER/HOW.json, now and then, for libFuzzer ends the process as it likes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

SAY_S = 0.5
WARM_UP_S = 0.2  # of the time, before memory is measured: regular expressions, caches and the interpreter settle


def _say(folder: Path, how: str, **what: object) -> None:
    file = folder / f"{how}.new"
    file.write_text(json.dumps(what))
    file.replace(folder / f"{how}.json")


def explore(name: str, seconds: float, seed: int, folder: Path) -> None:
    """Does not return."""
    import atheris

    with atheris.instrument_imports(include=["zim"]):
        from tests.fuzz.hammer import Hammer
        from tests.fuzz.target import LONGEST_BYTES
        from tests.fuzz.targets import ALL, corpus

    hammer, kept, seeds = Hammer(ALL[name], folder / "under_way"), folder / "kept", folder / "seeds"
    for at in (kept, seeds):
        at.mkdir(exist_ok=True)
    for number, data in enumerate(corpus(name)):
        (seeds / str(number)).write_bytes(data)
    said = began = time.monotonic()

    def one(data: bytes) -> None:
        nonlocal said
        hammer.one(data)
        if (now := time.monotonic()) - said > SAY_S or hammer.inputs == 1:
            said = now
            found = {what: data.hex() for what, data in hammer.findings.items()}
            _say(folder, "explore", inputs=hammer.inputs, seconds=now - began, findings=found)

    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={LONGEST_BYTES}",
        f"-seed={seed}",
        "-verbosity=0",
    ]
    limits = ["-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, *limits, str(kept), str(seeds)], one)
    atheris.Fuzz()


def hammer_on(name: str, seconds: float, seed: int, folder: Path) -> None:
    """Mutates, without instruments."""
    from tests.fuzz.hammer import Hammer, rss_bytes
    from tests.fuzz.targets import ALL, corpus

    hammer, kept = Hammer(ALL[name], folder / "under_way"), folder / "kept"
    found = [file.read_bytes() for file in sorted(kept.iterdir())] if kept.exists() else []
    seeds = corpus(name) + found
    began = time.monotonic()
    hammer.mutate(seeds, seed, seconds * WARM_UP_S)
    before = rss_bytes()
    hammer.mutate(seeds, seed + 1, seconds * (1 - WARM_UP_S))
    findings = {what: data.hex() for what, data in hammer.findings.items()}
    spent = time.monotonic() - began
    growth = rss_bytes() - before
    _say(folder, "hammer", inputs=hammer.inputs, seconds=spent, findings=findings, growth=growth, kept=len(found))


if __name__ == "__main__":
    how, name, seconds, seed, folder = sys.argv[1:]
    (explore if how == "explore" else hammer_on)(name, float(seconds), int(seed), Path(folder))

"""A process that appends until it is killed, or its disk is full, and says what it was acknowledged.

    python -m tests.unit.nodes.router.log.appender FOLDER SEED [FILE_BYTES]

Out: `ack STREAM HEAD` after each append, for each of its streams. With FILE_BYTES, no file may grow above that: then
`unavailable` once; the limit is lifted, and it goes on for some batches more.
"""

from __future__ import annotations

import random
import resource
import signal
import sys
from pathlib import Path

from tests.unit.nodes.router.log.contract import FOR_EVER, NOW, rules
from tests.unit.nodes.router.log.sqlite_support import acquired, direct, opened, told
from zim.errors import Unavailable

STREAMS = [f"r:{i}" for i in range(5)]
_MORE = 20


def say(text: str) -> None:
    """To the test, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main(folder: str, seed: str, file_bytes: str = "0") -> None:
    """See the module."""
    rng = random.Random(int(seed))
    log = opened(Path(folder), direct)
    lease = acquired(log)
    if int(file_bytes):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), hard))
    heads = {stream: log.heads([stream])[stream].head for stream in STREAMS}
    left = 1 << 30
    while left:
        left -= 1
        ahead = dict(heads)
        batch = []
        for _ in range(rng.choice([1, 1, 2, 10, 100])):
            stream = rng.choice(STREAMS)
            ahead[stream] += 1
            batch.append(told(stream, ahead[stream]))
        try:
            log.append(lease, batch)
        except Unavailable:
            assert int(file_bytes), "no limit, and yet"
            say("unavailable\n")
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            file_bytes, left = "0", _MORE
            continue
        heads = ahead
        say("".join(f"ack {stream} {head}\n" for stream, head in heads.items()))
        if rng.random() < 0.05:
            log.trim(lease, rules(count=200), NOW, FOR_EVER, 300)


if __name__ == "__main__":
    main(*sys.argv[1:])

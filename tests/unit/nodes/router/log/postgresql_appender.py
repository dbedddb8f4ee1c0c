"""A process that appends to several shards until it is killed, and says what it was acknowledged.

    python -m tests.unit.nodes.router.log.postgresql_appender URL SEED

Out: `ack STREAM HEAD` after each append, for its stream.
"""

from __future__ import annotations

import random
import sys

from gevent import monkey

monkey.patch_all()

import gevent

from tests.unit.nodes.router.log.contract import FOR_EVER, NOW, rules
from tests.unit.nodes.router.log.postgresql_support import opened
from tests.unit.nodes.router.log.sqlite_support import told
from zim.topology import LogPlace

SHARDS = 2


def main(url: str, seed: str) -> None:
    """See the module."""
    shared = opened(LogPlace(url, shards=SHARDS, single_copy=True))
    run = shared.enter("router-1")

    def append(shard: str, number: int) -> None:
        rng = random.Random(int(seed) + number)
        lease = shared.take(shared.look().holdings[shard], "router-1", run)
        assert lease is not None
        log, stream = shared.open(lease).log, f"r:{shard}"
        head = log.heads([stream])[stream].head
        while True:
            count = rng.choice([1, 1, 2, 10, 100])
            log.append(lease, [told(stream, head + i) for i in range(1, count + 1)])
            head += count
            sys.stdout.write(f"ack {stream} {head}\n")
            sys.stdout.flush()
            if rng.random() < 0.05:
                log.trim(lease, rules(count=200), NOW, FOR_EVER, 300)

    gevent.joinall([gevent.spawn(append, *one) for one in zip(shared.shards, range(9), strict=False)], raise_error=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

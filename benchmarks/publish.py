"""How many pushes a second one router takes, durably, and what a lone one costs.

    python -m benchmarks.publish [--seconds S] [--runs N] [--link-keys]

At the router's own socket, over one DEALER, as a logic node asks it, with all that a router does for a push; then end
to end: batches over HTTP, and the ZeroMQ publisher. Every push that is accepted is looked for in its stream. A lone
push is set against a bare fdatasync of the same disk in the same run. Prints medians over the runs.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import http.client  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import secrets  # noqa: E402
import statistics  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.fabric import Fabric  # noqa: E402
from benchmarks.report import percentile  # noqa: E402
from zim.client import ZmqPublisher  # noqa: E402
from zim.identity.link_keys import own_secret  # noqa: E402
from zim.net.link_keys import LinkKeys  # noqa: E402
from zim.net.transport import Dealer  # noqa: E402
from zim.protocol import codec, messages  # noqa: E402
from zim.protocol.publication import Publication  # noqa: E402

BODY = b"x" * 100
STREAMS = 10_000
BATCH = 1_000  # lines of one request
CLIENTS = 4  # HTTP connections, and ZeroMQ publishers' threads of work


def _streams() -> Iterator[str]:
    rng = random.Random(1)
    while True:
        yield f"u:{rng.randrange(STREAMS)}"


def at_router(endpoint: str, publishers: int, seconds: float, keys: LinkKeys | None) -> tuple[int, list[float]]:
    """So many publishers, each of whom pushes again once answered. Pushes accepted, and how long each took."""
    dealer = Dealer(endpoint, keys, "router-1")
    gevent.spawn(lambda: [None for _ in dealer.watch()])
    while not dealer.is_connected:
        gevent.sleep(0.01)
    streams, reqs, prefix = _streams(), itertools.count(1), secrets.token_hex(8)
    asked: dict[int, float] = {}
    took: list[float] = []

    def ask(count: int) -> None:
        now = time.perf_counter()
        batch = []
        for _ in range(count):
            req = next(reqs)
            asked[req] = now
            pushes = [Publication(f"{prefix}-{req:x}", [next(streams)], 5, BODY)]
            batch.append(messages.Publish("router-1", req, 1, 0, pushes))
        for start in range(0, len(batch), 500):
            assert dealer.send(codec.encode(batch[start : start + 500]))

    def take(frame: bytes) -> None:
        now = time.perf_counter()
        answers = codec.decode(frame, messages.ToAsker)
        for m in answers:
            assert isinstance(m, messages.PublishReply)
            assert m.outcomes[0].status == "ok", m
            took.append(now - asked.pop(m.req))
        if now < until:
            ask(len(answers))
        elif not asked:
            dealer.close()

    until = time.perf_counter() + seconds
    ask(publishers)
    dealer.receive(take)
    return len(took), took


def over_http(address: str, seconds: float) -> int:
    """Batches over some connections at once. Pushes accepted."""
    streams, until = _streams(), time.perf_counter() + seconds
    accepted = 0

    def run() -> None:
        nonlocal accepted
        connection = http.client.HTTPConnection(address, timeout=60)
        while time.perf_counter() < until:
            lines = [b'{"to":{"users":["%b"]},"body":"%b"}' % (next(streams)[2:].encode(), BODY) for _ in range(BATCH)]
            headers = {"Content-Type": "application/x-ndjson"}
            connection.request("POST", "/api/push/batch", b"\n".join(lines), headers)
            answer = connection.getresponse().read()
            accepted += answer.count(b'"status":"accepted"')
        connection.close()

    gevent.joinall([gevent.spawn(run) for _ in range(CLIENTS)], raise_error=True)
    return accepted


def over_zeromq(endpoint: str, seconds: float, server_key: str) -> int:
    """One publisher, pipelined. Pushes accepted."""
    streams, until = _streams(), time.perf_counter() + seconds
    with ZmqPublisher(endpoint, server_key=server_key) as publisher:
        asked = []
        while time.perf_counter() < until:
            asked += [publisher.push(BODY, users=[next(streams)[2:]]) for _ in range(500)]
            gevent.sleep(0)
        publisher.flush(60)
        for one in asked:
            one.result(60)
        return len(asked)


def kept(address: str) -> int:
    """How many messages the streams have."""
    connection = http.client.HTTPConnection(address, timeout=60)
    total = 0
    for n in range(STREAMS):
        connection.request("GET", f"/api/streams/u:{n}?after=0&limit=1")
        total += json.loads(connection.getresponse().read())["head"]
    return total


def bare_sync(folder: Path, times: int = 300) -> list[float]:
    """What the disk takes for 4 kB and an fdatasync."""
    took = []
    with (folder / "bare").open("wb") as f:
        for _ in range(times):
            started = time.perf_counter()
            f.write(bytes(4096))
            f.flush()
            os.fdatasync(f.fileno())
            took.append(time.perf_counter() - started)
    return took


def main() -> None:
    """The benchmark as a program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--link-keys", action="store_true", help="links are encrypted")
    args = parser.parse_args()
    console = Console()
    table = Table("what", "accepted/s", "p50 ms", "p99 ms")
    with tempfile.TemporaryDirectory(prefix="zim-bench-") as scratch, Fabric(None, link_keys=args.link_keys) as fabric:
        topology, address = fabric.topology, fabric.http[0]
        sync = statistics.median(bare_sync(Path(scratch)))
        total = 0
        endpoint = topology.routers[0].endpoint
        keys, links = None, topology.links
        if args.link_keys:  # it asks as the logic does
            keys = LinkKeys("logic-1", bytes.fromhex(own_secret(links, "logic-1")), links.public)
        server_key = links.public.get("logic-1", "")
        publish = topology.logics[0].publish.address if topology.logics[0].publish else ""
        for publishers in (1, 64, 1_000):
            runs = [at_router(endpoint, publishers, args.seconds, keys) for _ in range(args.runs)]
            total += sum(count for count, _ in runs)
            rate = statistics.median(count for count, _ in runs) / args.seconds
            took = [t for _, part in runs for t in part]
            table.add_row(
                f"router's socket, {publishers} publishers",
                f"{rate:,.0f}",
                f"{percentile(took, 0.5) * 1000:.2f}",
                f"{percentile(took, 0.99) * 1000:.2f}",
            )
        ways: list[tuple[str, Callable[[], int]]] = [
            (f"HTTP, {CLIENTS} x batches of {BATCH}", lambda: over_http(address, args.seconds)),
            ("ZeroMQ publisher", lambda: over_zeromq(publish, args.seconds, server_key)),
        ]
        for name, way in ways:
            counts = [way() for _ in range(args.runs)]
            total += sum(counts)
            table.add_row(name, f"{statistics.median(counts) / args.seconds:,.0f}", "", "")
        found = kept(address)
    console.print(table)
    console.print(f"bare fdatasync of 4 kB: {sync * 1000:.2f} ms (median)")
    console.print(f"accepted {total:,}, found in the streams {found:,}")
    if found != total:
        raise SystemExit("what was accepted is not what is kept")


if __name__ == "__main__":
    main()

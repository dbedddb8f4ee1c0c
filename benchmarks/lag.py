"""Long work: what one client or publisher can make others wait.

    python -m benchmarks.lag [--seconds S] [NAME …]

Under each input another client gets 50 pushes a second, and how long each takes is told beside how long it takes
without the input; and how long each node's loop let others wait, as its own metrics have it. Every push must arrive.
The inputs are made by a process of its own; the fabric has one node of each kind.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent import socket  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.fabric import BenchmarkError, Fabric, write_topology  # noqa: E402
from benchmarks.report import percentile  # noqa: E402
from benchmarks.tokens import ISSUER, make_secret, sign  # noqa: E402
from zim.client import Listener, Message, Publisher  # noqa: E402
from zim.client.address import split_address  # noqa: E402
from zim.protocol import frame  # noqa: E402
from zim.protocol.frame import Op, Packet  # noqa: E402
from zim.protocol.websocket import PING, encode_frame  # noqa: E402

RATE = 50.0
ARRIVE_S = 20.0  # for the last pushes to arrive
MEMBERS = 4_000
WATCHER = 900_000_000  # a user whom no input pushes to

# ---------------------------------------------------------------- inputs


def _post(http: str, path: str, body: bytes) -> None:
    media_type = "application/x-ndjson" if path.endswith("batch") else "application/json"
    request = urllib.request.Request(f"http://{http}{path}", body, {"Content-Type": media_type})
    with contextlib.suppress(urllib.error.HTTPError):  # refused, late: that is an answer, too
        urllib.request.urlopen(request, timeout=60).read()


def _zim(tcp: str, uid: int, rooms: list[str]) -> socket.socket:
    """A client that has sent its auth."""
    sock = socket.create_connection(split_address(tcp))
    auth = json.dumps({"token": sign(uid).decode(), "rooms": rooms}).encode()
    sock.sendall(frame.encode(Packet(Op.AUTH, 1, frame.VERSION, auth)))
    return sock


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 20):
            pass


def session_keys(http: str, tcp: str, ws: str) -> None:
    """A push to 8,000 session keys, again and again."""
    body = json.dumps({"to": {"keys": [f"{uid}_{uid}" for uid in range(1, 8_001)]}, "body": 1}).encode()
    while True:
        _post(http, "/api/push", body)


def many_users(http: str, tcp: str, ws: str) -> None:
    """A push to 100,000 users, again and again."""
    body = json.dumps({"to": {"users": list(range(1, 100_001))}, "body": 1}).encode()
    while True:
        _post(http, "/api/push", body)


def rooms_at_once(http: str, tcp: str, ws: str) -> None:
    """A client that comes with 1,000 new rooms, leaves, and comes again."""
    while True:
        prefix = random.randrange(1 << 40)
        sock = _zim(tcp, 5, [f"{prefix}-{n}" for n in range(1_000)])
        sock.recv(65536)
        sock.close()


def rooms_in_turn(http: str, tcp: str, ws: str) -> None:
    """A client that joins and leaves 900 rooms as fast as it is answered."""
    sock = _zim(tcp, 5, [])
    gevent.spawn(_drain, sock)
    for seq in range(2, 1 << 30):
        rooms = json.dumps({"rooms": [f"{seq // 2}-{n}" for n in range(900)]}).encode()
        sock.sendall(frame.encode(Packet(Op.LEAVE if seq % 2 else Op.JOIN, seq, frame.VERSION, rooms)))
        gevent.sleep(0.02)


def pings(http: str, tcp: str, ws: str) -> None:
    """Four connections that never say who they are, and ping at 2 MB/s each."""

    def one() -> None:
        many = encode_frame(PING, b"x", b"\0\0\0\0") * 5_700  # 40 kB
        while True:
            sock = socket.create_connection(split_address(ws))
            sock.sendall(
                f"GET /sub HTTP/1.1\r\nHost: {ws}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            gevent.spawn(_drain, sock)
            try:
                while True:
                    sock.sendall(many)
                    gevent.sleep(0.02)
            except OSError:
                pass  # its time is up

    gevent.joinall([gevent.spawn(one) for _ in range(4)])


def members(http: str, tcp: str, ws: str) -> None:
    """4,000 members of one room, and 100 pushes a second to it."""
    for uid in range(MEMBERS):
        gevent.spawn(_drain, _zim(tcp, 10_000 + uid, ["crowd"]))
        gevent.sleep(0.0002)
    publisher = Publisher(http)
    while True:
        publisher.push(b"x" * 200, rooms=["crowd"])
        gevent.sleep(0.01)


def batches(http: str, tcp: str, ws: str) -> None:
    """Batches of 10,000 lines, one after the other on one connection."""
    lines = b"".join(b'{"to":{"users":[%d]},"body":1}\n' % (1_000 + n % 500) for n in range(10_000))
    while True:
        _post(http, "/api/push/batch", lines)


def wrong_batches(http: str, tcp: str, ws: str) -> None:
    """Batches of 10,000 lines that are all wrong."""
    lines = b'{"to":{"users":[1]},"body":1,"other":1}\n' * 10_000
    while True:
        _post(http, "/api/push/batch", lines)


def wrong_pushs(http: str, tcp: str, ws: str) -> None:
    """goim's /1/pushs with 0.9 MB that are not what they should be."""
    body = b'{"m":1,"u":[' + b"1," * 450_000 + b'"x"]}'
    while True:
        _post(http, "/1/pushs", body)


def slow_readers(http: str, tcp: str, ws: str) -> None:
    """Twenty clients that read nothing for a while, and then all that waits for them at once."""

    def one(uid: int) -> None:
        sock = _zim(tcp, uid, [])
        while True:
            gevent.sleep(2.0)
            for _ in range(100):
                sock.recv(1 << 16)

    for uid in range(20_000, 20_020):
        gevent.spawn(one, uid)
    publisher = Publisher(http)
    while True:
        publisher.push(b"x" * 10_000, users=list(range(20_000, 20_020)))
        gevent.sleep(0.01)


def logins(http: str, tcp: str, ws: str) -> None:
    """Clients that come with a token each, are let in, and go: 64 at a time, as fast as it goes."""

    def one(first: int) -> None:
        for uid in range(first, 1 << 40, 64):
            sock = _zim(tcp, uid, [])
            sock.recv(65536)
            sock.close()

    gevent.joinall([gevent.spawn(one, 30_000 + n) for n in range(64)])


INPUTS: dict[str, Callable[[str, str, str], None]] = {
    f.__name__: f
    for f in (
        session_keys,
        many_users,
        rooms_at_once,
        rooms_in_turn,
        pings,
        members,
        batches,
        wrong_batches,
        wrong_pushs,
        slow_readers,
        logins,
    )
}

# ---------------------------------------------------------------- the other client


class Watcher:
    """A client, and a backend that pushes to it."""

    def __init__(self, fabric: Fabric) -> None:
        self._http = fabric.http[0]
        self.took_s: list[float] = []
        self.sent = 0
        self._listener = Listener(fabric.addresses("tcp")[0], sign(WATCHER).decode())
        gevent.spawn(self._listen)

    def _listen(self) -> None:
        for message in self._listener:
            assert isinstance(message, Message)
            self.took_s.append(time.monotonic() - float(message.body))

    def _push(self) -> None:
        Publisher(self._http).push(b"%.6f" % time.monotonic(), users=[WATCHER])

    def measure(self, seconds: float) -> list[float]:
        """Pushes for so long, each when it is due; returns how long each took to arrive, in ms."""
        self.took_s, self.sent = [], 0
        began = time.monotonic()
        while (due := began + self.sent / RATE) < began + seconds:
            gevent.sleep(max(0.0, due - time.monotonic()))
            self.sent += 1
            gevent.spawn(self._push)
        until = time.monotonic() + ARRIVE_S
        while len(self.took_s) < self.sent and time.monotonic() < until:
            gevent.sleep(0.05)
        if len(self.took_s) != self.sent:
            raise BenchmarkError(f"{self.sent} pushes, {len(self.took_s)} arrived")
        return [s * 1000 for s in self.took_s]


def _lags(fabric: Fabric) -> dict[str, dict[float, int]]:
    """By node: how often its loop let others wait for so long, by the upper end of the bucket."""
    found: dict[str, dict[float, int]] = {}
    t = fabric.topology
    for node in [*t.routers, *t.logics, *t.jobs, *t.comets]:
        assert node.admin
        page = urllib.request.urlopen(f"http://{node.admin[0].address}/metrics", timeout=30).read().decode()
        lines = [line for line in page.splitlines() if line.startswith("zim_node_loop_lag_seconds_bucket")]
        found[node.name] = {float(line.split('"')[1]): int(float(line.split()[-1])) for line in lines}
    return found


def _worst(before: dict[float, int], after: dict[float, int]) -> str:
    """The longest wait in between."""
    total = max(after.values()) - max(before.values())
    bound = min(b for b in after if after[b] - before[b] == total)
    return "> 2.5 s" if bound == float("inf") else f"≤ {bound * 1000:g} ms"


def _attack(fabric: Fabric, name: str) -> subprocess.Popen[bytes]:
    arguments = [fabric.http[0], fabric.addresses("tcp")[0], fabric.addresses("ws")[0]]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.lag", "--input", name, *arguments])


def _fabric(folder: Path) -> Fabric:
    """One that verifies tokens."""
    file = folder / "topology.toml"
    file.write_text(write_topology(1) + ISSUER)
    return Fabric(file)


def run(names: list[str], seconds: float) -> Table:
    """Each input against a fabric of its own."""
    table = Table("input", "p50", "p99", "worst", *(f"loop of {kind}" for kind in ("router", "logic", "job", "comet")))
    for name in ["nothing", *names]:
        with tempfile.TemporaryDirectory(prefix="zim-bench-") as folder, _fabric(Path(folder)) as fabric:
            watcher = Watcher(fabric)
            watcher.measure(2.0)
            attack = _attack(fabric, name) if name != "nothing" else None
            try:
                gevent.sleep(2.0)
                before = _lags(fabric)
                took_ms = watcher.measure(seconds)
                after = _lags(fabric)
                if attack is not None and attack.poll() is not None:
                    raise BenchmarkError(f"the input {name} ended with {attack.returncode}")
            finally:
                if attack is not None:
                    attack.kill()
            figures = [f"{percentile(took_ms, share):.1f} ms" for share in (0.5, 0.99, 1.0)]
            table.add_row(name, *figures, *(_worst(before[node], after[node]) for node in before))
            print(name, *figures, *(f"{n} {_worst(before[n], after[n])}" for n in before), sep="  ", flush=True)
    return table


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(INPUTS)}; all if none is given")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--input", choices=INPUTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.input:
        INPUTS[args.input](*args.names)
        return
    make_secret()
    if unknown := set(args.names) - set(INPUTS):
        parser.error(f"there is no input {', '.join(sorted(unknown))}")
    Console().print(run(args.names or list(INPUTS), args.seconds))


if __name__ == "__main__":
    main()

"""What clients notice while a fabric on a shared log changes under them: thousands connected, and pushes all the time.

    python -m tests.fault.moves rolling      all nodes are restarted, one at a time
    python -m tests.fault.moves grow         a router is added, and another one drained
    python -m tests.fault.moves failover     the database is killed, and its standby promoted
    python -m tests.fault.moves nothing      to compare with

PostgreSQL with a synchronous standby, four routers (three and one that comes later in `grow`), two logics, two jobs,
five comets. Clients are zim.client's Listener in processes of their own, publishers zim.client's Publisher: each push
is for one user, and says when it was first tried. At the end every push that was accepted is looked for.
"""

from __future__ import annotations

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import argparse
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gevent

from tests.fault.test_takeover import SHARDS, shards, sharing
from tests.harness import Fabric, wait_until
from tests.postgresql import Postgres, cluster
from zim.client import Listener, Message, Publisher, PushError
from zim.client.values import State

FIRST_UID = 1_000
CROWDS = 2  # processes with clients
CONNECT_S = 120.0
SETTLE_S = 30.0
QUIET_S = 5.0  # of pushes, before and after
PUBLISHERS = 32


@dataclass
class Heard:
    """What the clients of one process have got.

    Attributes:
        got: numbers of pushes, by user, in the order in which they came.
        took_s: from the first attempt of each push to its client.
        connects: by user; lost: events that say so, and offsets that do not follow each other.
    """

    got: dict[int, list[int]] = field(default_factory=dict)
    took_s: list[float] = field(default_factory=list)
    connects: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)


def _listen(heard: Heard, uid: int, addresses: list[str]) -> None:
    def on_state(state: State) -> None:
        heard.connects[uid] += state.name == "connected"

    offset = 0
    for event in Listener(addresses, str(uid), rooms=[], on_state=on_state):
        if isinstance(event, Message):
            number, at = json.loads(event.body)
            heard.got[uid].append(number)
            heard.took_s.append(time.monotonic() - at)
            if event.offset != offset + 1:
                heard.lost.append(f"{uid}: offset {event.offset} after {offset}")
            offset = event.offset
        else:
            heard.lost.append(f"{uid}: {event}")


def _crowd(addresses: list[str], uids: range) -> None:
    """A process with clients: says when all are connected, and at the end of its input what they have got."""
    heard = Heard({uid: [] for uid in uids})
    for n, uid in enumerate(uids):
        turn = uid % len(addresses)
        gevent.spawn(_listen, heard, uid, addresses[turn:] + addresses[:turn])
        if n % 20 == 19:
            gevent.sleep(0.02)
    while len(heard.connects) < len(uids):
        gevent.sleep(0.05)
    print("connected", flush=True)  # noqa: T201
    gevent.spawn(_count, heard)
    gevent.get_hub().threadpool.apply(sys.stdin.read)
    print(json.dumps(vars(heard)), flush=True)  # noqa: T201


def _count(heard: Heard) -> None:
    """Says again and again how much has come."""
    while True:
        gevent.sleep(0.5)
        print(sum(map(len, heard.got.values())), flush=True)  # noqa: T201


class Crowd:
    """Some thousand clients, in processes of their own."""

    def __init__(self, addresses: list[str], count: int) -> None:
        each = -(-count // CROWDS)
        self.got = [0] * CROWDS
        self.uids = range(FIRST_UID, FIRST_UID + count)
        self._last = [""] * CROWDS
        self._processes = []
        for n in range(CROWDS):
            mine = self.uids[n * each : (n + 1) * each]
            command = [sys.executable, "-m", "tests.fault.moves", "--crowd", *map(str, (mine[0], mine[-1]))]
            process = subprocess.Popen([*command, *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._processes.append(process)
        self._readers = [gevent.spawn(self._read, n) for n in range(CROWDS)]

    def _read(self, n: int) -> None:
        out = self._processes[n].stdout
        assert out is not None
        for line in out:
            self._last[n] = line.decode().strip()
            if self._last[n].isdigit():
                self.got[n] = int(self._last[n])

    def wait_connected(self) -> None:
        """Until all are."""
        wait_until(lambda: all(self._last), "all are connected", CONNECT_S)

    def close(self) -> None:
        """Leaves no process."""
        for process in self._processes:
            process.kill()
            process.wait()

    def end(self) -> Heard:
        """What all of them have got."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        gevent.joinall(self._readers)
        whole = Heard()
        for text in self._last:
            one = json.loads(text)
            whole.got |= {int(uid): numbers for uid, numbers in one["got"].items()}
            whole.connects += Counter({int(uid): count for uid, count in one["connects"].items()})
            whole.took_s += one["took_s"]
            whole.lost += one["lost"]
        return whole


class Pushes:
    """Pushes to one user each, at a pace.

    Attributes:
        accepted: numbers, by user. failed: by what it was.
    """

    def __init__(self, http: list[str], uids: range, rate: float) -> None:
        self.accepted: dict[int, list[int]] = {uid: [] for uid in uids}
        self.failed: Counter[str] = Counter()
        self._is_over = False
        self._rng = random.Random("zim moves")
        self._uids, self._http, self._rate = uids, http, rate
        self._publishers = [gevent.spawn(self._run, n) for n in range(PUBLISHERS)]

    def _run(self, n: int) -> None:
        turn = n % len(self._http)
        number, pause_s = n, PUBLISHERS / self._rate
        due = time.monotonic() + self._rng.random() * pause_s
        with Publisher(self._http[turn:] + self._http[:turn]) as publisher:
            while not self._is_over:
                gevent.sleep(max(0.0, due - time.monotonic()))
                number, due = number + PUBLISHERS, max(due + pause_s, time.monotonic() - 1.0)
                uid = self._rng.choice(self._uids)
                try:
                    publisher.push(json.dumps([number, time.monotonic()]), users=uid)
                    self.accepted[uid].append(number)
                except PushError as e:
                    self.failed[f"{type(e).__name__}: {e}"] += 1

    def stop(self) -> int:
        """No more; how many were accepted."""
        self._is_over = True
        gevent.joinall(self._publishers, timeout=60)
        return sum(map(len, self.accepted.values()))


def rolling(fabric: Fabric, primary: Postgres, second: Postgres) -> None:
    """All nodes, one at a time."""
    _zim(fabric, "restart", "--rolling")


def grow(fabric: Fabric, primary: Postgres, second: Postgres) -> None:
    """One more router, and one that leaves."""
    fabric.add_later()
    _zim(fabric, "reload")
    wait_until(lambda: min(shards(fabric).values()) >= SHARDS // 4, "all have their part", 30)
    _say(f"shards: {shards(fabric)}")
    _zim(fabric, "drain", "router-1")
    left = [name for name in fabric.binds if name.startswith("router") and name != "router-1"]
    wait_until(lambda: sum(shards(fabric, *left).values()) == SHARDS, "the others own all")
    _say(f"shards: {shards(fabric)}")


def failover(fabric: Fabric, primary: Postgres, second: Postgres) -> None:
    """As a machine that is switched off, and a cluster manager."""
    primary.kill()
    second.promote()
    wait_until(lambda: sum(shards(fabric).values()) == SHARDS, "every shard has an owner", 30)


def nothing(fabric: Fabric, primary: Postgres, second: Postgres) -> None:
    """To compare with."""
    gevent.sleep(10)


WHAT = {one.__name__: one for one in (rolling, grow, failover, nothing)}


def _zim(fabric: Fabric, command: str, *words: str) -> None:
    began = time.monotonic()
    line = [sys.executable, "-m", "zim", command, "--topology", str(fabric.file), *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    _say(f"zim {command} {' '.join(words)}: {time.monotonic() - began:.1f} s")
    for line_ in (done.stdout + done.stderr).splitlines():
        _say(f"    {line_}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _fabric(what: str, folder: Path) -> Iterator[tuple[Fabric, Postgres, Postgres]]:
    with cluster(standby=True) as (primary, second):
        assert second is not None
        later = {"later": ["router-4"]} if what == "grow" else {}
        with sharing(primary, second, routers=4, comets=5, folder=folder, **later) as fabric:
            yield fabric, primary, second


def run(what: str, clients: int, rate: float) -> bool:
    """One of them. Returns whether nothing was lost, and nothing came twice."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        _fabric(what, Path(scratch)) as (fabric, primary, second),
        contextlib.closing(Crowd([*fabric.tcp.values()], clients)) as crowd,
    ):
        crowd.wait_connected()
        _say(f"{clients:,} clients are connected")
        pushes = Pushes(list(fabric.http.values()), crowd.uids, rate)
        gevent.sleep(QUIET_S)
        began = time.monotonic()
        WHAT[what](fabric, primary, second)
        _say(f"{what}: {time.monotonic() - began:.1f} s")
        gevent.sleep(QUIET_S)
        accepted = pushes.stop()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: sum(crowd.got) >= accepted, "all has come", SETTLE_S)
        heard = crowd.end()
        return _report(pushes, heard, clients)


def _report(pushes: Pushes, heard: Heard, clients: int) -> bool:
    took, found = sorted(heard.took_s), Counter[str]()
    for uid, accepted in pushes.accepted.items():
        got = heard.got[uid]
        found["accepted"] += len(accepted)
        found["lost"] += len(set(accepted) - set(got))
        found["twice"] += len(got) - len(set(got))
        found["not accepted, and there"] += len(set(got) - set(accepted))
    found["failed"] = sum(pushes.failed.values())
    found["gaps"] = len(heard.lost)
    _say(", ".join(f"{what} {count:,}" for what, count in found.items()))
    for what, count in pushes.failed.most_common(3):
        _say(f"    {count} × {what}")
    for line in heard.lost[:3]:
        _say(f"    {line}")
    parts = [took[min(int(len(took) * part), len(took) - 1)] for part in (0.5, 0.99, 0.999)]
    _say("push → client p50 / p99 / p99.9 / max: " + " / ".join(f"{s * 1000:,.0f} ms" for s in (*parts, took[-1])))
    connects = sum(heard.connects.values())
    _say(f"reconnects a client: {connects / clients - 1:.3f}, at most {max(heard.connects.values()) - 1}")
    return not (found["lost"] or found["twice"] or found["gaps"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m tests.fault.moves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("what", nargs="*", help=" or ".join(WHAT))
    made.add_argument("--clients", type=int, default=5_000)
    made.add_argument("--rate", type=float, default=500.0, help="pushes a second")
    made.add_argument("--crowd", type=int, nargs=2, help=argparse.SUPPRESS)
    options = made.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.crowd:
        first, last = options.crowd
        _crowd(options.what, range(first, last + 1))
        return 0
    if len(options.what) != 1 or options.what[0] not in WHAT:
        made.error(f"what is to happen is one of {', '.join(WHAT)}")
    return 0 if run(options.what[0], options.clients, options.rate) else 1


if __name__ == "__main__":
    sys.exit(main())

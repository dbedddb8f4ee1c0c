"""Pushes to room 1 at a fixed rate; a process of its own, so that it never waits for the subscribers.

Waits for a line on standard input, prints one line of JSON when it is done. Open loop: push i is due at i / rate,
whether or not those before it have been answered.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, field

from zim.client import Publisher, PushError

FIRST = 1_000_000  # numbers of the same width, so that all bodies have the same size
MARK = b'"pad"'  # once in every body, and nowhere else in what a subscriber receives
MIN_SIZE = 64


@dataclass
class Pushed:
    """What became of the pushes.

    Attributes:
        accepted: the number of those that HTTP answered with success.
        refused: how often each error was seen.
        http_s: how long each accepted one took to be answered.
        seconds: from the first to the last.
        late_s: the longest that a push waited for a free connection.
        started_at: monotonic.
    """

    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    http_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    late_s: float = 0.0
    started_at: float = 0.0


def make_body(number: int, connection: int, size: int) -> bytes:
    """A body of exactly `size` bytes (at least MIN_SIZE): number, connection, time of sending in monotonic us."""
    head = b'{"n":%d,"c":%d,"t":%d,"pad":"' % (FIRST + number, connection, time.monotonic_ns() // 1000)
    return head + b"x" * (size - len(head) - 2) + b'"}'


def publish(addresses: list[str], rate: float, seconds: float, size: int, connections: int) -> Pushed:
    """Pushes for so many seconds, over so many connections, which take turns at the logic nodes."""
    result = Pushed(started_at=time.monotonic())
    total = round(rate * seconds)
    numbers = itertools.count()
    lock = threading.Lock()

    def run(connection: int) -> None:
        publisher = Publisher(addresses[connection % len(addresses)])
        while True:
            with lock:
                number = next(numbers)
            if number >= total:
                break
            due = result.started_at + number / rate
            wait_s = due - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            started = time.monotonic()
            problem = None
            try:
                publisher.push_room(1, make_body(number, connection, size))
            except PushError as error:
                problem = str(error)
            took = time.monotonic() - started
            with lock:
                result.late_s = max(result.late_s, started - due)
                if problem is None:
                    result.accepted += 1
                    result.http_s.append(took)
                else:
                    result.refused[problem] = result.refused.get(problem, 0) + 1
        publisher.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.seconds = time.monotonic() - result.started_at
    return result


def main() -> None:
    """Arguments: addresses (comma), rate, seconds, size, connections."""
    addresses, rate, seconds, size, connections = sys.argv[1:]
    sys.stdin.readline()
    result = publish(addresses.split(","), float(rate), float(seconds), int(size), int(connections))
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()

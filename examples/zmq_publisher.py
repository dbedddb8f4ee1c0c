"""Pushes many messages over ZeroMQ, straight to a logic. Ends when it is known what became of each.

    .venv/bin/zim up                                            # a fabric, in another terminal
    .venv/bin/zim listen --uid 7 --verbose                      # user 7, in a third
    .venv/bin/python examples/zmq_publisher.py --users 100      # a message to each of the users 0 to 99

Exit codes: 0 all were accepted; 1 some were not, and which is printed.
"""

import argparse
import sys
import time

from zim.client import PushError, ZmqPublisher

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000, metavar="N", help="how many (%(default)s)")
    parser.add_argument(
        "--endpoint",
        action="append",
        help="a logic's publish address; more than once: the next one takes over (tcp://127.0.0.1:7176)",
    )
    parser.add_argument("--try-for", type=float, default=15.0, metavar="S", help="seconds (%(default)s)")
    options = parser.parse_args()
    started = time.monotonic()
    with ZmqPublisher(options.endpoint or "tcp://127.0.0.1:7176", retry_s=options.try_for) as publisher:
        # push() comes back at once, and waits only while too many are under way.
        pending = {uid: publisher.push(b'{"hello":%d}' % uid, users=uid) for uid in range(options.users)}
        publisher.flush()
    outcomes = {uid: push.outcome() for uid, push in pending.items()}
    failed = {uid: outcome for uid, outcome in outcomes.items() if isinstance(outcome, PushError)}
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} accepted in {time.monotonic() - started:.1f} s")
    for uid, error in failed.items():
        print(f"user {uid}: {error}", file=sys.stderr)
    sys.exit(1 if failed else 0)

"""Pushes without zim's client: plain HTTP, by the `requests` library. Ends when it is known what became of the push.

    .venv/bin/pip install requests
    .venv/bin/zim up                                                 # a fabric, in another terminal
    .venv/bin/python examples/push_with_requests.py 7 '{"test":1}'   # to user 7

The key makes it safe to try again: however often the push is sent, it is kept once.
Exit codes: 0 accepted; 1 refused; 3 not reachable or not able for 15 s, or it is not known whether it was accepted.
"""

import argparse
import json
import sys
import time
import uuid

import requests


def push(url, document, tries_s=15.0):
    """Sends it until there is an answer that does not change any more; gives that, or None if nobody answers."""
    answer, until = None, time.monotonic() + tries_s
    while True:
        wait_s = 0.5
        try:
            answer = requests.post(f"{url}/api/push", json=document, timeout=10)
        except requests.RequestException as error:
            print(f"no answer: {error}", file=sys.stderr)
        else:
            if answer.status_code not in (503, 504):  # not accepted for now; not known
                return answer
            wait_s = float(answer.headers.get("Retry-After", wait_s))
        if time.monotonic() + wait_s > until:
            return answer
        time.sleep(wait_s)


def parse_json(text):
    """The value of an argument that is JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON: {error}; a string is "{text}", with quotes') from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uid", help="the user")
    parser.add_argument("body", type=parse_json, help="any JSON")
    parser.add_argument("--fabric", default="http://127.0.0.1:7172", help="a logic's http address (%(default)s)")
    parser.add_argument("--try-for", type=float, default=15.0, metavar="S", help="seconds (%(default)s)")
    options = parser.parse_args()
    # wait_s: the answer has a receipt, which says how many sessions have got it.
    wanted = {"to": {"users": [options.uid]}, "body": options.body, "id": str(uuid.uuid4()), "wait_s": 2}
    last = push(options.fabric, wanted, options.try_for)
    if last is None or last.status_code in (503, 504):
        sys.exit(3)
    print(json.dumps(last.json(), indent=2))
    sys.exit(0 if last.ok else 1)

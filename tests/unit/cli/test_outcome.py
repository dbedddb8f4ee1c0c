"""What `zim push --wait` says of a receipt."""

from __future__ import annotations

import msgspec
import pytest

from zim.cli.outcome import tell
from zim.fabric.answers import Receipt
from zim.fabric.tally import Tally


def receipt(tally: Tally, offline: int = 0, **more: object) -> Receipt:
    return msgspec.structs.replace(Receipt.of("p", tally, offline, {}, []), **more)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (receipt(Tally(1, 1)), "delivered to 1 session"),
        (receipt(Tally(1500, 1500)), "delivered to 1,500 sessions"),
        (receipt(Tally()), "delivered to nobody: no session was there for it, or it still catches up"),
        (receipt(Tally(), awaited=2), "delivered to nobody that is known yet; 2 reports of comets still to come"),
        (receipt(Tally(2, 2), awaited=1), "delivered to 2 sessions; 1 report of comets still to come"),
        (receipt(Tally(1), awaited=1), "delivered to 0 of 1 session, 1 pending still"),
        (receipt(Tally(), 2), "delivered to nobody: no session was there for it; 2 users are offline"),
        (
            receipt(Tally(), empty_rooms=["lobi"]),
            "delivered to nobody: no session was there for it; nobody is in room 'lobi'",
        ),
        (
            receipt(Tally(1, 1), 1, empty_rooms=["a", "b\n", "c"]),
            "delivered to 1 session; 1 user is offline; nobody is in rooms 'a', 'b\\n', 'c'",
        ),
        (
            receipt(Tally(1, 1), empty_rooms=["a", "b", "c", "d"]),
            "delivered to 1 session; nobody is in rooms 'a', 'b', 'c' and others",
        ),
        (receipt(Tally(1)), "delivered to 0 of 1 session, 1 pending still"),
        (
            receipt(Tally(9, 3, 1, 1, 1, 1), 1),
            "delivered to 3 of 9 sessions, 1 whose connection was lost, 1 too slow, 1 too late for the ttl, "
            "1 of which nobody knows, 2 pending still; 1 user is offline",
        ),
        (
            receipt(Tally(1, 1), silent=["router-1", "router-2"]),
            "delivered to 1 session; no answer from router-1, router-2: what they know is missing here",
        ),
        (
            receipt(Tally(), forgotten=["router-1"]),
            "delivered to nobody that is known yet; router-1 crashed: what became of it there is forgotten",
        ),
    ],
)
def test_the_sentence(found: Receipt, text: str) -> None:
    assert tell(found) == text

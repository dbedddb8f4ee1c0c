"""Who is subscribed to a stream: by speech, and by key for pushes to some sessions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.nodes.comet.comets import Comet, Guest
from zim.fabric.audience import ALL, audience
from zim.nodes.comet.views import Subscribers
from zim.protocol.speech import SPEECHES

KEYS = [f"7_{n}" for n in range(1, 9)]


class Counted(Guest):
    """Notes how often somebody asks for its key."""

    asked = 0

    @property
    def key(self) -> str:
        Counted.asked += 1
        return super().key


def guest(seq: int, kind: type[Guest] = Guest) -> Guest:
    """A session of user 7."""
    found = kind(seq, SPEECHES[seq % len(SPEECHES)])
    found.uid, found.seq = "7", seq
    return found


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 8)), max_size=20), st.lists(st.sampled_from([*KEYS, "8_1", "x"]))
)
def test_an_audience_is_found_whoever_came_and_went(moves: list[tuple[bool, int]], keys: list[str]) -> None:
    subscribers, here = Subscribers(), dict[int, Guest]()
    for at, (comes, seq) in enumerate(moves):
        if at == len(moves) // 2:
            subscribers.of(audience(KEYS))  # the index is made
        if comes and seq not in here:
            here[seq] = guest(seq)
            subscribers.add(here[seq])
        elif not comes:
            subscribers.discard(here.pop(seq, guest(seq)))
    to = audience(keys)
    expected = {s for s in here.values() if not keys or s.key in keys}
    groups = subscribers.groups(to)
    assert [s for _, group in groups for s in group if s.speech not in [speech for speech, _ in groups]] == []
    assert sorted(s.seq for _, group in groups for s in group) == sorted(s.seq for s in expected)
    assert all(s.speech is speech for speech, group in groups for s in group)
    assert subscribers.count(to) == len(expected)
    assert subscribers.count(ALL) == len(subscribers) == len(here)


def test_a_push_to_some_asks_none_of_the_others() -> None:
    subscribers = Subscribers()
    for seq in range(1, 1_001):
        subscribers.add(guest(seq, Counted))
    subscribers.groups(audience(["7_1"]))
    Counted.asked = 0
    assert subscribers.count(audience(["7_3", "7_900", "7_2000"])) == 2
    assert [s.seq for _, group in subscribers.groups(audience(["7_5"])) for s in group] == [5]
    assert Counted.asked == 0


@pytest.mark.parametrize("is_catching_up", [False, True])
def test_a_key_that_changes_is_found_under_its_new_name(is_catching_up: bool) -> None:
    comet = Comet()
    for n in range(3):
        comet.owner("u:7").append("u:7", str(n))
    session = comet.guest()
    comet.do(comet.hub.join(session, "7", [], 0.0, {"u:7": ("a", 0 if is_catching_up else 3)}))
    while not session.is_open:
        comet.hear()
    view = session.views[0]
    subscribers = view.catching[session].subscribers if is_catching_up else view.live
    assert subscribers.of(audience([session.key])) == [session]
    before = session.key
    view.number(session, 99)
    assert subscribers.of(audience([before, "7_99"])) == [session]
    assert subscribers.count(audience([before])) == 0
    assert list(subscribers) == [session]

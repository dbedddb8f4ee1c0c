"""A connection's life as a table: no way back, no way around auth, and no packet that it does not expect."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.nodes.comet.phases import BROKEN, NEXT, SILENT, Cause, Phase, after
from zim.protocol.errors import WireError

ORDER = list(Phase)


def walk(causes: list[Cause]) -> list[Phase]:
    """Where it has been. What cannot happen does not."""
    been = [Phase.HANDSHAKE]
    for cause in causes:
        try:
            been.append(after(been[-1], cause))
        except WireError:
            been += [after(been[-1], Cause.CLOSE)]
        except LookupError:
            continue
    return been


@given(st.lists(st.sampled_from(Cause), max_size=12))
def test_it_only_goes_on_and_leaves_out_nothing_but_by_closing(causes: list[Cause]) -> None:
    been = walk(causes)
    for one, then in pairwise(been):
        step = ORDER.index(then) - ORDER.index(one)
        assert step >= 0
        assert step <= 1 or then.is_over
    if Phase.OPEN in been:
        assert [p for p in ORDER[:4] if p in been] == ORDER[:4]


@given(st.lists(st.sampled_from(Cause), max_size=12), st.sampled_from([Cause.CLOSE, Cause.HANG_UP]))
def test_it_can_be_closed_and_hung_up_at_any_time(causes: list[Cause], end: Cause) -> None:
    last = walk(causes)[-1]
    assert after(last, end).is_over
    assert after(after(last, end), Cause.HANG_UP) is Phase.CLOSED


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("cause", Cause)
def test_what_happens_after_the_end_changes_nothing(phase: Phase, cause: Cause) -> None:
    if phase.is_over and cause is not Cause.HANG_UP:
        assert after(phase, cause) is phase


@pytest.mark.parametrize("phase", Phase)
def test_the_table_is_whole(phase: Phase) -> None:
    assert (phase in BROKEN) == (None in NEXT[phase].values())
    assert (phase in SILENT) == (not phase.is_over)
    packets = {Cause.AUTH, Cause.PACKET}
    assert packets <= NEXT[phase].keys() or not packets & NEXT[phase].keys()


def test_what_a_client_may_not_say() -> None:
    with pytest.raises(WireError, match="the first packet must be auth"):
        after(Phase.HANDSHAKE, Cause.PACKET)
    with pytest.raises(WireError, match="operation not known"):
        after(Phase.OPEN, Cause.AUTH)
    assert after(Phase.OPEN, Cause.PACKET) is Phase.OPEN


def test_our_own_mistakes_are_no_breach_of_the_wire() -> None:
    for phase, cause in [(Phase.HANDSHAKE, Cause.OPENED), (Phase.JOINING, Cause.AUTH), (Phase.OPEN, Cause.OPENED)]:
        with pytest.raises(LookupError):
            after(phase, cause)

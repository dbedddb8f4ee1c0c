"""What a link to a router loses: requests, and the question who owns what."""

from __future__ import annotations

from zim.fabric.questions import OnlineCounts
from zim.nodes.placement import Placement, numbers_of
from zim.protocol.messages import Ask


def test_of_what_is_lost_only_requests_have_numbers() -> None:
    placement = Placement("logic-1", ("router-1",), ("shard-1", "shard-2"))
    placement.on_link("router-1", True)
    (question,) = placement.due(1.0)
    asked = Ask("shard-1", 7, OnlineCounts())
    assert numbers_of([question.message, asked, question.message]) == [7]

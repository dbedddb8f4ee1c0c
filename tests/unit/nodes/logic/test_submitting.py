"""Pushes over ZeroMQ: each is answered, and one that is wrong spoils no other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.web.support import Recorder
from zim.fabric.limits import KEY_BYTES, RECIPIENTS
from zim.fabric.port import Fabric
from zim.fabric.principals import LOCAL
from zim.fabric.push import Push
from zim.nodes.logic.submitting import answer_submits, read_submit
from zim.protocol.messages import Submit, Submitted


def publish_submitted(fabric: Fabric, submits: Sequence[Submit], max_body_bytes: int) -> list[Submitted]:
    """As logic's runner does it, which has no fabric but routers."""
    read = [read_submit(m, max_body_bytes) for m in submits]
    pushes = [found for found in read if isinstance(found, Push)]
    problems = [found if isinstance(found, str) else "" for found in read]
    return answer_submits(submits, problems, fabric.publish_many(pushes, LOCAL) if pushes else [])


GOOD = Submit(1, "k", ["u:7", "r:1", "u:7"], 5, b"x", 1500, ("7_1",))


def test_a_push_is_published_as_http_would() -> None:
    fabric = Recorder()
    (answer,) = publish_submitted(fabric, [GOOD], 10)
    assert (answer.req, answer.status, answer.why) == (1, "ok", "")
    (push,) = fabric.pushes
    assert (list(push.streams), push.body, push.op, push.key) == (["u:7", "r:1"], b"x", 5, "k")
    assert (push.ttl_s, push.only) == (1.5, ("7_1",))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Submit(2, "", ["u:7"], 5, bytes(11)), "11 bytes"),
        (Submit(2, "", [], 5, b""), "1 to"),
        (Submit(2, "", ["u:1"] * (RECIPIENTS + 1), 5, b""), "1 to"),
        (Submit(2, "", ["u:7", "7"], 5, b""), "'7' is no stream"),
        (Submit(2, "", ["r:a\0"], 5, b""), "is no stream"),
        (Submit(2, "", ["u:7"], 4, b""), "op: 4"),
        (Submit(2, "", ["u:7"], 5, b"", 0, ("7_1", "8_1")), "only: '8_1'"),
        (Submit(2, "", ["u:7"], 5, b"", 0, ("7",)), "only: '7'"),
        (Submit(2, "", ["u:7"], 26, b""), "op: 26"),
        (Submit(2, "", ["u:7"], -1, b""), "op: -1"),
        (Submit(2, "", ["u:7"], 254, b""), "op: 254"),
        (Submit(2, "", ["u:7"], 255, b""), "op: 255"),
        (Submit(2, "x" * (KEY_BYTES + 1), ["u:7"], 5, b""), "cannot be a key"),
        (Submit(2, "a\n", ["u:7"], 5, b""), "cannot be a key"),
        (Submit(2, "", ["u:7"], 5, b"", -1), "ttl_s: -0.001"),
        (Submit(2, "", ["u:7"], 5, b"", 1 << 62), "ttl_s: 4.6"),
        (Submit(2, "", ["u:7"], 5, b"", (1 << 64) - 1), "ttl_s: 1.8"),
    ],
)
def test_what_is_wrong_is_named_and_the_others_are_published(bad: Submit, says: str) -> None:
    fabric = Recorder()
    answers = publish_submitted(fabric, [GOOD, bad, Submit(3, "", ["*"], 100, b"")], 10)
    assert [(a.req, a.status) for a in answers] == [(1, "ok"), (2, "invalid"), (3, "ok")]
    assert says in answers[1].why
    assert len(fabric.pushes) == 2


@pytest.mark.parametrize("status", ["unavailable", "unknown", "conflict"])
def test_what_the_fabric_says_is_handed_on(status: str) -> None:
    fabric = Recorder()
    fabric.fail(status)  # type: ignore[arg-type]
    (answer,) = publish_submitted(fabric, [GOOD], 10)
    assert answer.status == status
    assert answer.push_id


def test_nothing_right_asks_nobody() -> None:
    fabric = Recorder()
    publish_submitted(fabric, [Submit(2, "", [], 5, b"")], 10)
    assert fabric.pushes == []

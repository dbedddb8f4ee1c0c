"""Pushes that come over ZeroMQ instead of HTTP, from publishers in Python: `zim.client.ZmqPublisher`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zim.fabric.names import shown
from zim.fabric.pauses import Pause, no_pause
from zim.fabric.push import Published, Push, WrongValue, check_push, check_streams
from zim.protocol.messages import Submit, Submitted


def read_submit(m: Submit, max_body_bytes: int, pause: Pause = no_pause) -> Push | str:
    """The push that a publisher asks for; or what is wrong with it, for people. pause: is called between steps."""
    if len(m.body) > max_body_bytes:
        return f"the body has {len(m.body)} bytes, more than the {max_body_bytes} of fabric.max_body_bytes"
    push = Push(m.streams, m.body, m.op, m.key, m.ttl_ms / 1000, m.only)
    try:
        check_push(push)
        check_streams(push, pause)
    except WrongValue as e:
        return str(e)
    return push if len(m.streams) == 1 else replace(push, streams=list(dict.fromkeys(m.streams)))


def answer_submits(
    submits: Sequence[Submit], problems: Sequence[str], published: Sequence[Published]
) -> list[Submitted]:
    """What their publisher hears.

    Args:
        problems: of each, "" if it is right.
        published: what became of those that are, in their order.
    """
    rest = iter(published)
    answers: list[Submitted] = []
    for m, problem in zip(submits, problems, strict=True):
        if problem:
            answers.append(Submitted(m.req, "", "invalid", problem))
        else:
            p = next(rest)
            why = "; ".join(dict.fromkeys(part.why for part in p.parts if part.why))
            if p.status == "forbidden":
                why = f"the API key has no scope push for {shown(p.forbidden)}"
            if p.refusal is not None:
                retry_ms = int(p.refusal.wait_s * 1000) + 1
                answers.append(Submitted(m.req, p.push_id, "unavailable", p.refusal.why, retry_ms, p.refusal.limit))
            else:
                assert p.status != "limited"
                answers.append(Submitted(m.req, p.push_id, p.status, why))
    return answers

"""Pushes that come over ZeroMQ instead of HTTP, from publishers in Python: `zim.client.ZmqPublisher`."""

from __future__ import annotations

from collections.abc import Sequence

from zim.fabric.port import Fabric
from zim.fabric.push import Push, WrongValue, check_push, check_streams
from zim.protocol.messages import Submit, Submitted


def publish_submitted(fabric: Fabric, submitted: Sequence[Submit], max_body_bytes: int) -> list[Submitted]:
    """Publishes what is right and answers each. Switches."""
    problems = [_problem(m, max_body_bytes) for m in submitted]
    pushes = [
        _push(m, list(dict.fromkeys(m.streams))) for m, problem in zip(submitted, problems, strict=True) if not problem
    ]
    published = iter(fabric.publish_many(pushes) if pushes else ())
    answers: list[Submitted] = []
    for m, problem in zip(submitted, problems, strict=True):
        if problem:
            answers.append(Submitted(m.req, "", "invalid", problem))
        else:
            p = next(published)
            why = "; ".join(part.why for part in p.parts if part.why)
            answers.append(Submitted(m.req, p.push_id, p.status, why))
    return answers


def _push(m: Submit, streams: Sequence[str]) -> Push:
    return Push(streams, m.body, m.op, m.key, m.ttl_ms / 1000, m.only)


def _problem(m: Submit, max_body_bytes: int) -> str:
    """What is wrong, for people; "" if nothing is."""
    if len(m.body) > max_body_bytes:
        return f"the body has {len(m.body)} bytes, more than the {max_body_bytes} of fabric.max_body_bytes"
    try:
        push = _push(m, m.streams)
        check_push(push)
        check_streams(push)
    except WrongValue as e:
        return str(e)
    return ""

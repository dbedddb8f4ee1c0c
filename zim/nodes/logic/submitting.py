"""Pushes that come over ZeroMQ instead of HTTP, from publishers in Python: `zim.client.ZmqPublisher`."""

from __future__ import annotations

from collections.abc import Sequence

from zim.fabric.streams import name_problem, user_of_key, user_stream
from zim.protocol.messages import Submit, Submitted
from zim.web.fabric import Published, Push
from zim.web.push import MAX_TTL_S

RECIPIENTS = 100_000
MAX_TTL_MS = int(MAX_TTL_S * 1000)  # its end must be a number that a log can keep


def read_submit(m: Submit, max_body_bytes: int) -> Push | str:
    """The push that a publisher asks for; or what is wrong with it, for people."""
    problem = _problem(m, max_body_bytes)
    return problem or Push(list(dict.fromkeys(m.streams)), m.body, m.op, m.key, m.ttl_ms / 1000, m.only)


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
            why = "; ".join(part.why for part in p.parts if part.why)
            answers.append(Submitted(m.req, p.push_id, p.status, why))
    return answers


def _problem(m: Submit, max_body_bytes: int) -> str:
    if len(m.body) > max_body_bytes:
        return f"the body has {len(m.body)} bytes, more than the {max_body_bytes} of fabric.max_body_bytes"
    if not 0 < len(m.streams) <= RECIPIENTS:
        return f"a push goes to 1 to {RECIPIENTS} streams"
    if m.op != 5 and (m.op < 100 or m.op in (254, 255)):
        return f"op is {m.op}; right is 5, or 100 and up without 254 and 255"
    if not 0 <= m.ttl_ms <= MAX_TTL_MS:
        return f"ttl_ms is {m.ttl_ms}; right is how long, at most {MAX_TTL_MS}, or 0 for ever"
    if wrong := next((key for key in m.only if user_stream(user_of_key(key)) not in m.streams), ""):
        return f"only has {wrong!r}; right are keys of sessions, uid_seq, of users that the push goes to"
    return next((problem for stream in m.streams if (problem := name_problem(stream))), "")

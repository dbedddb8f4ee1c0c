"""Pushes on their way from a publisher to the routers. Second stop of a push: one Publish per router goes out.

One answer is given, and it is honest: ok means stored, unavailable means surely not stored.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import gevent
import msgspec

from zim.errors import Unavailable
from zim.nodes.links import Asker, NotSent
from zim.protocol import messages
from zim.sharding import Shards
from zim.web.fabric import Part, Published, Push, Status

log = logging.getLogger(__name__)

ANSWER_S = 2.0  # for one attempt; a router makes a publisher wait at most one second for a comet that is behind
ATTEMPTS = 3
GIVE_UP_S = 5.0  # over all attempts, and for a router that is away
RETRY_S = 0.02
TOGETHER = 1_000  # of one publisher's pushes under way to one router

RouterAsker = Asker[messages.ToAsker]


@dataclass(slots=True)
class _Share:
    """What one router is to do of one push."""

    push: Push
    push_id: str
    digest: bytes
    router: str
    streams: list[str]
    term: int = 0
    attempt: int = 1
    may_be_stored: bool = False  # an attempt had no answer: from then on no "unavailable" is honest
    status: Status = "unavailable"
    offsets: Sequence[int] = ()
    why: str = ""

    @property
    def size(self) -> int:
        return len(self.push.body) + 64 * len(self.streams)

    def message(self, req: int) -> messages.Publish:
        p = self.push
        ttl_ms = max(1, int(p.ttl_s * 1000)) if p.ttl_s else 0
        return messages.Publish(
            req, self.push_id, self.streams, p.op, p.body, self.attempt, self.term, self.digest, ttl_ms, p.only
        )

    def end(self, status: Status, why: str = "", offsets: Sequence[int] = ()) -> None:
        if status == "unavailable" and self.may_be_stored:
            status, why = "unknown", f"an earlier attempt had no answer; then: {why}"
        self.status, self.why, self.offsets = status, why, offsets


def push_id_of(key: str) -> str:
    """The id of a push: the hash of the publisher's key, random without one."""
    return blake2b(key.encode(), digest_size=16).hexdigest() if key else secrets.token_hex(16)


def digest_of(push: Push) -> bytes:
    """What a push is, so that another one under the same key is noticed; b"" without a key."""
    if not push.key:
        return b""
    content = (push.op, push.ttl_s, sorted(push.only), sorted(push.streams), push.body)
    return blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()


class Publisher:
    """Publishes for one logic node."""

    def __init__(self, routers: Mapping[str, RouterAsker]) -> None:
        self._routers = routers
        self._shards = Shards(list(routers))
        self._terms = dict.fromkeys(routers, 0)

    def publish_many(self, pushes: Sequence[Push]) -> list[Published]:
        """See zim.web.fabric.Fabric. Switches."""
        shares: list[list[_Share]] = []
        by_router: dict[str, list[_Share]] = {}
        for push in pushes:
            mine = self._shares(push)
            shares.append(mine)
            for share in mine:
                by_router.setdefault(share.router, []).append(share)
        if len(by_router) == 1:
            (router,) = by_router
            self._publish_at(router, by_router[router])
        else:
            jobs = [gevent.spawn(self._publish_at, router, at) for router, at in by_router.items()]
            gevent.joinall(jobs, raise_error=True)
        return [_published(mine) for mine in shares]

    def _shares(self, push: Push) -> list[_Share]:
        by_router: dict[str, list[str]] = {}
        for stream in push.streams:
            by_router.setdefault(self._shards.owner(stream), []).append(stream)
        push_id, digest = push_id_of(push.key), digest_of(push)
        return [_Share(push, push_id, digest, router, streams) for router, streams in by_router.items()]

    def _publish_at(self, router: str, shares: list[_Share]) -> None:
        for start in range(0, len(shares), TOGETHER):
            self._publish_together(router, shares[start : start + TOGETHER])

    def _publish_together(self, router: str, shares: list[_Share]) -> None:
        asker, until = self._routers[router], time.monotonic() + GIVE_UP_S
        for share in shares:
            share.term = self._terms[router]
            share.why = f"{router} is away"
        while shares and time.monotonic() < until:
            asked = asker.ask_all([(share.message, share.size) for share in shares], ANSWER_S)
            again: list[_Share] = []
            for share, answer in zip(shares, asked, strict=True):
                if isinstance(answer, NotSent):
                    again.append(share)
                elif isinstance(answer, Unavailable):
                    share.attempt, share.may_be_stored, share.why = share.attempt + 1, True, str(answer)
                    if share.attempt <= ATTEMPTS:
                        again.append(share)
                    else:
                        share.end("unknown", share.why)
                else:
                    assert isinstance(answer, messages.Published)
                    self._terms[router] = answer.term
                    self._end(share, answer)
            shares = again
            if shares:
                gevent.sleep(RETRY_S)
        for share in shares:
            share.end("unavailable", share.why)

    def _end(self, share: _Share, answer: messages.Published) -> None:
        match answer.status:
            case "ok":
                share.end("ok", offsets=answer.offsets)
            case "conflict":
                share.end("conflict", "the key was used for another push")
            case "unavailable":
                share.end("unavailable", f"{share.router} cannot take it now")
            case "unknown":
                share.end("unknown", f"{share.router} cannot tell whether it was stored")
            case "refused":
                streams = share.streams
                log.error("a router refuses a stream: the topologies differ", extra={"streams": streams[:3]})
                share.end("unavailable", f"{share.router} says that {streams[0]} is not its stream")


def _published(shares: Sequence[_Share]) -> Published:
    """One answer for all shares: as bad as the worst of them, and never more than is known."""
    statuses = {share.status for share in shares}
    status: Status = "unknown"
    if "conflict" in statuses:
        status = "conflict"
    elif len(statuses) == 1:
        (status,) = statuses
    parts = [Part(s.router, s.status, s.streams, s.offsets, s.why) for s in shares]
    return Published(shares[0].push_id, status, parts)

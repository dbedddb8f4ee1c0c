"""What a backend pushes, and what became of it. Frozen values, and how the HTTP API writes them."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zim.client.errors import PushConflict, PushError, PushRefused, PushUnavailable, PushUnknown
from zim.fabric.streams import EVERYBODY, user_stream
from zim.protocol.frame import MAX_STREAM_BYTES, Op
from zim.protocol.messages import Submit

_SESSION_KEY = re.compile(r"(.+)_([1-9][0-9]{0,18})", re.DOTALL)

Names = str | int | Iterable[str | int]
"""One name, or several."""


@dataclass(frozen=True, slots=True)
class Push:
    """One push.

    Attributes:
        body: any bytes; a string goes as UTF-8.
        users, rooms: to whom, one or several. A user gets it in every session, now or when one comes back.
        keys: sessions, by their keys; only these get it.
        everybody: to all who are connected.
        op: 5, or 100 and above but not 254 and 255.
        ttl_s: after how many seconds it is of no use any more; 0 if it does not expire.
        id: its idempotency key: what is the same and has the same id is pushed once, however often it is sent. One
            is made up where it is "".
    """

    body: bytes | str
    users: Names = ()
    rooms: Names = ()
    keys: Names = ()
    everybody: bool = False
    op: int = Op.PUSH
    ttl_s: float = 0.0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is kept, durably.

    Attributes:
        push_id: how the fabric names the push, in its logs and receipts. Another string than Push.id.
        streams: the offset that it got in each stream; empty where the fabric does not tell.
    """

    push_id: str
    streams: dict[str, int] = field(default_factory=dict)


def names(found: Names) -> list[str]:
    """Names as a list of strings."""
    return [str(found)] if isinstance(found, str | int) else [str(name) for name in found]


def body_bytes(body: bytes | str) -> bytes:
    """A body's bytes."""
    return body.encode() if isinstance(body, str) else body


def streams_of(push: Push, id: str) -> tuple[list[str], tuple[str, ...]]:
    """The streams that a push goes to, each once, and the sessions that a user's stream is for alone.

    Raises:
        PushRefused: it is for nobody, or for something that cannot be called so.
    """
    users, only = {user_stream(name): None for name in names(push.users)}, []
    for key in names(push.keys):
        match = _SESSION_KEY.fullmatch(key)
        if match is None:
            raise PushRefused(f"{key[:50]!r} is no session's key; one is a user's name and a number, as in 7_12", id=id)
        if user_stream(match[1]) not in users:
            only.append(key)
    users |= {user_stream(key.rpartition("_")[0]): None for key in only}
    streams = [*users, *dict.fromkeys("r:" + name for name in names(push.rooms))]
    if any(not 2 < _n_bytes(stream) <= MAX_STREAM_BYTES or stream == "r:*" for stream in streams):
        raise PushRefused("users and rooms have names of 1 to 253 bytes; everybody is no room", id=id)
    if push.everybody:
        streams.append(EVERYBODY)
    if not streams:
        raise _to_nobody(id)
    return streams, tuple(dict.fromkeys(only))


def make_submit(number: int, push: Push, id: str) -> Submit:
    """A push as it goes over ZeroMQ, checked: one that cannot be read would spoil the others in its frame.

    Raises:
        PushRefused: something of it cannot be.
    """
    streams, only = streams_of(push, id)
    if push.op != Op.PUSH and (not 100 <= push.op < 1 << 31 or push.op in (Op.TEST, Op.TEST_REPLY)):
        raise PushRefused(f"{push.op} is not for pushes; take 5, or 100 and above but not 254 and 255", id=id)
    if not 0 <= push.ttl_s < 1e9:
        raise PushRefused(f"a ttl of {push.ttl_s} s", id=id)
    if not 0 < _n_bytes(id) <= 255:
        raise PushRefused("an id has 1 to 255 bytes", id=id)
    return Submit(number, id, streams, push.op, body_bytes(push.body), math.ceil(push.ttl_s * 1000), only)


def _n_bytes(name: str) -> int:
    """In UTF-8; 0 if it cannot be that."""
    try:
        return len(name.encode())
    except UnicodeEncodeError:
        return 0


def _to_nobody(id: str) -> PushRefused:
    return PushRefused("a push to nobody; name users, rooms, keys or everybody", id=id)


def encode_push(push: Push, id: str) -> bytes:
    """A push as `POST /api/push` takes it, and a line of `POST /api/push/batch`, without its end.

    The body goes in base64, so that it arrives byte for byte.

    Raises:
        PushRefused: it is for nobody.
    """
    to: dict[str, Any] = {
        "users": names(push.users),
        "rooms": names(push.rooms),
        "keys": names(push.keys),
        "everybody": push.everybody,
    }
    found: dict[str, Any] = {"to": {key: value for key, value in to.items() if value}}
    if not found["to"]:
        raise _to_nobody(id)
    found |= {"base64": base64.b64encode(body_bytes(push.body)).decode(), "op": push.op, "id": id}
    if push.ttl_s:
        found["ttl_s"] = push.ttl_s
    return json.dumps(found, separators=(",", ":")).encode()


def read_answer(status: int, text: bytes, id: str, retry_after_s: float = 0.0) -> Accepted | PushError:
    """What became of a push, from its HTTP answer or its line in the answer to a batch.

    Args:
        status: HTTP's; 0 where the answer says it itself.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return _failed(status, "", id, retry_after_s)
    if found.get("status") == "accepted" and status in (0, 200):
        push_id, streams = found.get("id"), found.get("streams")
        if isinstance(push_id, str) and isinstance(streams, dict) and all(type(o) is int for o in streams.values()):
            return Accepted(push_id, streams)
    said, wait_s = found.get("status"), found.get("retry_after_s")
    said_status = said if type(said) is int and not status else status
    if type(wait_s) is int and 0 < wait_s < 1 << 31:
        retry_after_s = float(wait_s)
    why = ": ".join(str(found[key])[:300] for key in ("title", "detail") if found.get(key))
    return _failed(said_status, why, id, retry_after_s)


def _failed(status: int, why: str, id: str, retry_after_s: float) -> PushError:
    """The error for an HTTP status; the problem's own words where there are any."""
    if status in (429, 503):
        when = f"in {retry_after_s:g} s" if retry_after_s else "soon"
        text = f"the fabric cannot take it now ({status}{', ' + why if why else ''}); try again {when}"
        return PushUnavailable(text, status, id, retry_after_s)
    if status in (502, 504):
        text = f"it is not known whether the push was accepted ({status}{', ' + why if why else ''})"
        return PushUnknown(text, status, id)
    if status in (409, 422):  # 422: draft-ietf-httpapi-idempotency-key-header-07, 2.7
        return PushConflict(why or "another push with this id has been accepted before", status, id)
    if 400 <= status < 500:
        hint = why or "is this a logic node's HTTP port?"
        return PushRefused(f"refused ({status}): {hint}", status, id)
    return PushUnknown(f"an answer that is not understood ({status}{', ' + why if why else ''})", status, id)

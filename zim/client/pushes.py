"""What a backend pushes, and what became of it. Frozen values, and how the HTTP API writes them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from zim.client.errors import PushConflict, PushError, PushRefused, PushUnavailable, PushUnknown
from zim.client.http import line_of
from zim.fabric import push as fabric
from zim.fabric.answers import Receipt
from zim.fabric.limits import WAIT_S
from zim.fabric.push import PUSH_OP, WrongValue, recipients
from zim.protocol.messages import Submit

Names = str | int | Iterable[str | int]
"""One name, or several."""
NOBODY: Names = ()
_NAMES = "a string or an integer, or a list of them"


@dataclass(frozen=True, slots=True)
class Push:
    """One push.

    Attributes:
        body: any bytes; a string goes as UTF-8.
        users, rooms: to whom, one or several. A user gets it in every session, now or when one comes back. Names are
            text: "007" is another user than 7, and one whom nobody is with zim's token handler.
        keys: sessions, by their keys; only these get it.
        everybody: to all who are connected.
        op: 5, or 100 and above but not 254 and 255.
        ttl_s: after how many seconds it is of no use any more; 0 if it does not expire.
        id: its idempotency key: what is the same and has the same id is pushed once, however often it is sent. One
            is made up where it is "".
    """

    body: bytes | str
    users: Names = NOBODY
    rooms: Names = NOBODY
    keys: Names = NOBODY
    everybody: bool = False
    op: int = PUSH_OP
    ttl_s: float = 0.0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is kept, durably.

    Attributes:
        push_id: how the fabric names the push, in its logs and receipts. Another string than Push.id.
        streams: the offset that it got in each stream; empty where the fabric does not tell.
        receipt: what had become of it when the answer was given; None where that was not asked for.
    """

    push_id: str
    streams: dict[str, int] = field(default_factory=dict)
    receipt: Receipt | None = None


_USUAL = {str, int}


def names(found: Names, where: str) -> list[str]:
    """Names as a list of strings. where: the argument that they are.

    Raises:
        WrongValue: it is something else: a number like 7.0 would be a user whom nobody is.
    """
    if found is NOBODY:  # of each push two of three
        return []
    if _is_name(found):
        return [str(found)]
    if isinstance(found, bytes) or not isinstance(found, Iterable):
        raise WrongValue(where, f"{found!r:.100} is no name", _NAMES)
    listed = list(found)
    if not set(map(type, listed)) <= _USUAL:
        for i, name in enumerate(listed):
            if not _is_name(name):
                raise WrongValue(f"{where}[{i}]", f"{name!r:.100} is no name", _NAMES)
    return list(map(str, listed))


def _is_name(found: object) -> bool:
    return isinstance(found, str | int) and not isinstance(found, bool)


def body_bytes(body: bytes | str) -> bytes:
    """A body's bytes. Raises: PushRefused, if it has none."""
    if isinstance(body, str):
        return body.encode()
    if not isinstance(body, bytes | bytearray | memoryview):
        raise PushRefused(
            f"the body is bytes or a string, not {type(body).__name__}; json.dumps makes one of most things"
        )
    return bytes(body)


def _recipients(push: Push) -> tuple[list[str], list[str], list[str]]:
    """The names of users, rooms and sessions. Raises: WrongValue."""
    if not isinstance(push.everybody, bool):
        raise WrongValue("everybody", f"it is {push.everybody!r:.100}", "True or False")
    return names(push.users, "users"), names(push.rooms, "rooms"), names(push.keys, "keys")


def make_submit(number: int, push: Push, id: str) -> Submit:
    """A push as it goes over ZeroMQ, checked: one that cannot be read would spoil the others in its frame.

    Raises:
        PushRefused: something of it cannot be.
    """
    try:
        streams, only = recipients(*_recipients(push), push.everybody)
        asked = fabric.Push(streams, body_bytes(push.body), push.op, id, push.ttl_s, only)
        fabric.check_push(asked)
    except WrongValue as error:
        raise PushRefused(str(error), id=id) from None
    return Submit(number, id, streams, push.op, asked.body, math.ceil(push.ttl_s * 1000), only)


def encode_push(push: Push, id: str, wait_s: float | None = None) -> bytes:
    """A push as `POST /api/push` takes it, and without wait_s a line of `POST /api/push/batch`, without its end.

    The body goes in base64, so that it arrives byte for byte.

    Args:
        wait_s: for how long the answer waits for the receipt; None: it has none.

    Raises:
        PushRefused: it is for nobody, for what is no name, or nobody waits so long.
    """
    if wait_s is not None and not 0 <= wait_s <= WAIT_S:
        raise PushRefused(f"wait_s: {wait_s:g} is no time to wait; right is 0 to {WAIT_S:.0f} seconds", id=id)
    try:
        users, rooms, keys = _recipients(push)
    except WrongValue as error:
        raise PushRefused(str(error), id=id) from None
    to: dict[str, Any] = {"users": users, "rooms": rooms, "keys": keys}
    to = {key: value for key, value in (to | {"everybody": push.everybody}).items() if value}
    if not to:
        raise PushRefused("a push to nobody; name users, rooms, keys or everybody", id=id)
    body = base64.b64encode(body_bytes(push.body)).decode()
    found: dict[str, Any] = {"to": to, "base64": body, "op": push.op, "id": id}
    if push.ttl_s:
        found["ttl_s"] = push.ttl_s
    if wait_s is not None:
        found["wait_s"] = wait_s
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
        return _failed(status, line_of(text) if status == 400 else "", id, retry_after_s)
    if found.get("status") == "accepted" and status in (0, 200):
        push_id, streams = found.get("id"), found.get("streams")
        if isinstance(push_id, str) and isinstance(streams, dict) and all(type(o) is int for o in streams.values()):
            return Accepted(push_id, streams, _receipt(found.get("receipt")))
    said, wait_s = found.get("status"), found.get("retry_after_s")
    said_status = said if type(said) is int and not status else status
    if type(wait_s) is int and 0 < wait_s < 1 << 31:
        retry_after_s = float(wait_s)
    return _failed(said_status, _why(found), id, retry_after_s)


def _receipt(found: Any) -> Receipt | None:
    """A receipt that cannot be read does not make a push less accepted."""
    try:
        return msgspec.convert(found, Receipt | None)
    except msgspec.ValidationError:
        return None


def _why(problem: dict[str, Any]) -> str:
    """What a problem (RFC 9457) says, in one sentence; "" if it says nothing."""
    texts = [str(problem[key])[:300] for key in ("detail", "title") if problem.get(key)]
    right = f"; right is {str(problem['expected'])[:300]}" if problem.get("expected") else ""
    return texts[0] + right if texts else ""


def _failed(status: int, why: str, id: str, retry_after_s: float) -> PushError:
    """The error for an HTTP status; the problem's own words where there are any."""
    said = f": {why}" if why else ""
    if status in (429, 503):
        when = f"in {retry_after_s:g} s" if retry_after_s else "soon"
        what = "the fabric cannot take it now" if status == 503 else "more than a limit allows"
        text = f"{what} ({status}){said or f'; try again {when}'}"
        return PushUnavailable(text, status, id, retry_after_s)
    if status in (502, 504):
        return PushUnknown(f"it is not known whether the push was accepted ({status}){said}", status, id)
    if status in (409, 422):  # 422: draft-ietf-httpapi-idempotency-key-header-07, 2.7
        return PushConflict(why or "another push with this id has been accepted before", status, id)
    if 400 <= status < 500:
        proxy = ", and does a proxy in between let you in?" if status in (401, 403, 407) else "?"
        hint = why or f"that is not zim's answer: is this a logic node's HTTP port{proxy}"
        return PushRefused(f"refused ({status}): {hint}", status, id)
    return PushUnknown(f"an answer that is not understood ({status}){said}", status, id)

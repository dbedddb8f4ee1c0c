"""What a backend asks for with `POST /api/push`, or with one line of a batch: the document, and the Push it makes.

Pure: a document in, a Push or a Problem out.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from zim.fabric.limits import KEY_BYTES, NAME_BYTES, OFFSET, RECIPIENTS, SESSION_KEY_BYTES, TTL_S, WAIT_S
from zim.fabric.names import KEY, NAME, NAME_PATTERN
from zim.fabric.push import FIRST_OP, LAST_OP, OP, PUSH_OP, TEST_OPS, Push, WrongValue, check_push, recipients
from zim.fabric.streams import ROOM, SESSION_KEY, SESSION_KEY_PATTERN
from zim.net.fairness import give_way
from zim.web.idempotency import HEADER, parse_idempotency_key
from zim.web.problems import IDEMPOTENCY_KEY, TOO_LARGE, Problem
from zim.web.reading import Reader, invalid

_NAME_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": NAME_BYTES, "pattern": NAME_PATTERN}
_KEY_SCHEMA: dict[str, Any] = {"maxLength": KEY_BYTES, "pattern": NAME_PATTERN}
_OP_SCHEMA: dict[str, Any] = {"anyOf": [{"const": PUSH_OP}, {"minimum": FIRST_OP}], "not": {"enum": [*TEST_OPS]}}
NumberField = Annotated[int, Meta(ge=0, le=OFFSET)]
NameField = Annotated[str, Meta(extra_json_schema=_NAME_SCHEMA)]
SessionKeyField = Annotated[
    str, Meta(extra_json_schema={"maxLength": SESSION_KEY_BYTES, "pattern": SESSION_KEY_PATTERN})
]

_USERS = f'user ids: strings, {NAME}, or integers of 63 bits; 7 is the user "7"'
_ROOMS = f'room ids: strings, {ROOM}, or integers of 63 bits; 1 is the room "1"'
_KEYS = f"keys of sessions, {SESSION_KEY}; only these sessions of their users get it"
_OP = f"{OP}: the operation in the client's packet"
_TTL = (
    f"seconds for which it is worth being handed out, above 0, at most {TTL_S / 86_400:.0f} days; without it, for ever"
)
_ID = f"the idempotency key: {KEY}"
_WAIT = f"seconds, 0 to {WAIT_S:.0f}, to wait for the verdict"


class To(msgspec.Struct, forbid_unknown_fields=True):
    """Whom a push is for: any mix, and not nobody."""

    users: Annotated[list[NameField | NumberField], Meta(description=_USERS)] = []
    rooms: Annotated[list[NameField | NumberField], Meta(description=_ROOMS)] = []
    keys: Annotated[list[SessionKeyField], Meta(description=_KEYS)] = []
    everybody: Annotated[bool, Meta(description="true: everybody; false is as if it were not there")] = False


class BatchLine(msgspec.Struct, forbid_unknown_fields=True):
    """One push of a batch."""

    to: Annotated[To, Meta(description="an object with users, rooms, keys, everybody, any mix")]
    body: Annotated[Raw, Meta(description="any JSON value; clients get its bytes as they are")] = msgspec.field(
        default_factory=Raw
    )
    base64: (
        Annotated[bytes, Meta(description="instead of body: any bytes, in base64 (RFC 4648 4, padded)")] | UnsetType
    ) = UNSET
    op: Annotated[int, Meta(ge=PUSH_OP, le=LAST_OP, description=_OP, extra_json_schema=_OP_SCHEMA)] = PUSH_OP
    ttl_s: Annotated[float, Meta(gt=0, le=TTL_S, description=_TTL)] | UnsetType = UNSET
    id: Annotated[str, Meta(min_length=1, description=_ID, extra_json_schema=_KEY_SCHEMA)] | UnsetType = UNSET


class PushRequest(BatchLine, forbid_unknown_fields=True):
    """One push."""

    wait_s: Annotated[float, Meta(ge=0, le=WAIT_S, description=_WAIT)] | UnsetType = UNSET


PUSH_REQUEST = Reader(PushRequest)
BATCH_LINE = Reader(BatchLine)


def make_push(line: BatchLine, max_body_bytes: int, key: str = "") -> Push:
    """The push that a document asks for.

    Args:
        line: the document.
        max_body_bytes: of the body, as bytes.
        key: the one in the request's header; "" for none.

    Raises:
        Problem: what it asks for cannot be.
    """
    body = _body(line)
    if len(body) > max_body_bytes:
        why = f"the body has {len(body)} bytes, at most {max_body_bytes} are allowed"
        raise Problem(TOO_LARGE, why, key="body" if line.base64 is UNSET else "base64", limit=max_body_bytes)
    if n_recipients(line.to) > RECIPIENTS:
        why = f"{n_recipients(line.to)} recipients, at most {RECIPIENTS} are allowed"
        raise Problem(TOO_LARGE, why, key="to", limit=RECIPIENTS)
    if line.id is not UNSET and key not in ("", line.id):
        why = "the Idempotency-Key header and the field id differ"
        raise Problem(IDEMPOTENCY_KEY, why, key="id", expected="one of the two, or both the same")
    to, ttl_s = line.to, 0.0 if line.ttl_s is UNSET else line.ttl_s
    try:
        streams, only = recipients(to.users, to.rooms, to.keys, to.everybody, give_way)
        push = Push(streams, body, line.op, key if line.id is UNSET else line.id, ttl_s, only)
        check_push(push)
    except WrongValue as error:
        raise invalid("id" if error.where == "key" else error.where, error.why, error.right) from None
    return push


def parse_header(header: str | None) -> str:
    """The key in an Idempotency-Key header; "" without one.

    Raises:
        Problem: it is none.
    """
    try:
        return parse_idempotency_key(header)
    except ValueError as error:
        raise Problem(IDEMPOTENCY_KEY, f"Idempotency-Key: {error}", key="Idempotency-Key", expected=HEADER) from None


def n_recipients(to: To) -> int:
    """How many recipients are named."""
    return len(to.users) + len(to.rooms) + len(to.keys)


def _body(line: BatchLine) -> bytes:
    json = bytes(line.body)
    if line.base64 is UNSET:
        if not json:
            raise invalid("body", "it is missing, and so is base64", "one of the two")
        return json
    if json:
        raise invalid("base64", "it is there together with body", "one of the two")
    return line.base64

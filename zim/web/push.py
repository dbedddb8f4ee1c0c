"""What a backend asks for with `POST /api/push`, or with one line of a batch: the document, and the Push it makes.

Pure: a document in, a Push or a Problem out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from zim.fabric.streams import EVERYBODY, room_stream, user_stream
from zim.protocol.frame import Op
from zim.web.fabric import Push
from zim.web.names import HEADER, NAME, NAME_PATTERN, is_name, parse_idempotency_key, user_of_key
from zim.web.problems import IDEMPOTENCY_KEY, TOO_LARGE, Problem
from zim.web.reading import Reader, invalid

MAX_RECIPIENTS = 100_000  # users, rooms and keys of one request
MAX_WAIT_S = 30.0
MAX_TTL_S = 366 * 86_400.0
MAX_OP = (1 << 31) - 1  # an int32 on the client's wire
FIRST_OP = 100  # below it are goim's and zim's own
FORBIDDEN_OPS = (Op.TEST, Op.TEST_REPLY)

_NAME_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": 255, "pattern": NAME_PATTERN}
_OP_SCHEMA: dict[str, Any] = {"anyOf": [{"const": Op.PUSH}, {"minimum": FIRST_OP}], "not": {"enum": [*FORBIDDEN_OPS]}}
_NUMBER = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Name = Annotated[str, Meta(extra_json_schema=_NAME_SCHEMA)]
_SessionKey = Annotated[str, Meta(extra_json_schema={"maxLength": 255, "pattern": r"^[!-~]+_[1-9][0-9]{0,18}$"})]

_USERS = f'user ids: strings, {NAME}, or integers of 63 bits; 7 is the user "7"'
_ROOMS = f'room ids: strings, {NAME}, or integers of 63 bits; 1 is the room "1". Everybody is no room'
_KEYS = 'keys of sessions, `uid_seq`, such as "7_12": only these sessions of the user 7'
_OP = f"{Op.PUSH}, or {FIRST_OP} up to 2147483647 but not 254 and 255: the operation in the client's packet"
_TTL = "seconds for which it is worth being handed out, above 0, at most 366 days; without it, for ever"
_ID = f"the idempotency key: {NAME}"


class To(msgspec.Struct, forbid_unknown_fields=True):
    """Whom a push is for: any mix, and not nobody."""

    users: Annotated[list[_Name | _NUMBER], Meta(description=_USERS)] = []
    rooms: Annotated[list[_Name | _NUMBER], Meta(description=_ROOMS)] = []
    keys: Annotated[list[_SessionKey], Meta(description=_KEYS)] = []
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
    op: Annotated[int, Meta(ge=Op.PUSH, le=MAX_OP, description=_OP, extra_json_schema=_OP_SCHEMA)] = Op.PUSH
    ttl_s: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=MAX_TTL_S,
                description=_TTL,
            ),
        ]
        | UnsetType
    ) = UNSET
    id: Annotated[str, Meta(description=_ID, extra_json_schema=_NAME_SCHEMA)] | UnsetType = UNSET


class PushRequest(BatchLine, forbid_unknown_fields=True):
    """One push."""

    wait_s: (
        Annotated[float, Meta(ge=0, le=MAX_WAIT_S, description="seconds, 0 to 30, to wait for the verdict")] | UnsetType
    ) = UNSET


L = TypeVar("L", bound=BatchLine)

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
    if line.op != Op.PUSH and (line.op < FIRST_OP or line.op in FORBIDDEN_OPS):
        raise invalid("op", f"{line.op} is not for pushes", _OP)
    key = _key(line.id, key)
    streams, only = _recipients(line.to)
    return Push(streams, body, line.op, key, 0.0 if line.ttl_s is UNSET else line.ttl_s, only)


def parse_header(header: str | None) -> str:
    """The key in an Idempotency-Key header; "" without one.

    Raises:
        Problem: it is none.
    """
    if header is None:
        return ""
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


def _key(field: str | UnsetType, header: str) -> str:
    if field is UNSET:
        return header
    if not is_name(field):
        raise invalid("id", "it cannot be a key", NAME)
    if header and header != field:
        why = "the Idempotency-Key header and the field id differ"
        raise Problem(IDEMPOTENCY_KEY, why, key="id", expected="one of the two, or both the same")
    return field


def _recipients(to: To) -> tuple[Sequence[str], tuple[str, ...]]:
    """The streams, each once, and the sessions that a user's stream is for alone."""
    if n_recipients(to) > MAX_RECIPIENTS:
        why = f"{n_recipients(to)} recipients, at most {MAX_RECIPIENTS} are allowed"
        raise Problem(TOO_LARGE, why, key="to", limit=MAX_RECIPIENTS)
    streams = dict.fromkeys(user_stream(uid) for uid in _names(to.users, "to.users"))
    only = []
    for i, key in enumerate(to.keys):
        uid = user_of_key(key)
        if uid is None:
            raise invalid(f"to.keys[{i}]", "it is not a session's key", _KEYS)
        if user_stream(uid) not in streams:
            only.append(key)
    for key in only:
        streams[user_stream(user_of_key(key) or "")] = None
    for i, room in enumerate(_names(to.rooms, "to.rooms")):
        if room == EVERYBODY:
            raise invalid(f"to.rooms[{i}]", "everybody is no room", "to.everybody")
        streams[room_stream(room)] = None
    if to.everybody:
        streams[EVERYBODY] = None
    if not streams:
        raise invalid("to", "it names nobody", "at least one of users, rooms, keys, or everybody: true")
    return list(streams), tuple(dict.fromkeys(only))


def _names(values: Sequence[str | int], key: str) -> Iterator[str]:
    for i, value in enumerate(values):
        name = value if isinstance(value, str) else str(value)
        if not is_name(name):
            raise invalid(f"{key}[{i}]", "nothing can be called so", NAME)
        yield name

"""What the native API answers: the documents, and how they are made of what the fabric says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from zim.web import fabric
from zim.web.problems import CONFLICT, DEFECT, UNAVAILABLE, UNKNOWN, Kind, Problem

_RAW = msgspec.json.Decoder(Raw)
_KINDS: dict[fabric.Status, Kind] = {"unavailable": UNAVAILABLE, "unknown": UNKNOWN, "conflict": CONFLICT}


class Receipt(msgspec.Struct):
    """What became of one push, counted in sessions: targeted is the sum of delivered, gone, shed, expired, unknown and
    pending. `offline` counts users without a session, and stands outside."""

    id: str
    targeted: int
    delivered: int
    offline: int
    gone: int
    shed: int
    expired: int
    unknown: int
    pending: int
    hops_ms: dict[str, float]
    silent: Annotated[list[str], Meta(description="routers that did not answer; what they know is not in the sums")]
    forgotten: Annotated[
        list[str], Meta(description="routers that kept it and crashed before they had stored its receipt")
    ]


class Ledger(msgspec.Struct):
    """What became of all pushes, counted as in Receipt."""

    pushes: int
    targeted: int
    delivered: int
    gone: int
    shed: int
    expired: int
    unknown: int
    pending: Annotated[int, Meta(description="counted by itself, not as what is left of targeted")]
    offline: int
    balanced: Annotated[bool, Meta(description="every router answered, and every session is accounted for")]
    silent: Annotated[list[str], Meta(description="routers that did not answer; what they know is not in the sums")]


class Accepted(msgspec.Struct):
    """A push that is kept."""

    id: Annotated[str, Meta(description="names the push")]
    status: Literal["accepted"]
    streams: Annotated[dict[str, int], Meta(description="where it is: its offset in each stream")]
    receipt: Receipt | UnsetType = UNSET


class Part(msgspec.Struct):
    """One router's share of a push that was not kept everywhere."""

    router: str
    status: fabric.Status
    streams: Annotated[dict[str, int | None], Meta(description="its offset in each stream; null where it is not known")]
    why: str


class Message(msgspec.Struct):
    """One message of a stream: `body` if its bytes are JSON, else `base64`."""

    offset: int
    time: Annotated[int, Meta(description="when it was kept: Unix time in milliseconds")]
    op: int
    body: Any = UNSET
    base64: bytes | UnsetType = UNSET


class History(msgspec.Struct):
    """A piece of a stream."""

    stream: str
    epoch: Annotated[str, Meta(description="which history the offsets belong to")]
    first: Annotated[int, Meta(description="the first offset that is kept; head + 1 if none is")]
    head: Annotated[int, Meta(description="the last offset; 0 before the first message")]
    messages: list[Message]


class Unread(msgspec.Struct):
    """What a user has not acknowledged."""

    stream: str
    epoch: str
    head: int
    acknowledged: Annotated[int, Meta(description="the last offset acknowledged; 0 for none")]
    unread: Annotated[int, Meta(description="messages behind it that are kept")]


def as_json(body: bytes) -> Raw | None:
    """The bytes as a JSON value; None: they are none."""
    try:
        body.decode()  # msgspec.Raw takes any bytes in a string
        return _RAW.decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None


def accepted(published: fabric.Published, receipt: fabric.Receipt | None = None) -> Accepted:
    """What is answered to a push that is kept."""
    streams: dict[str, int] = {}
    for part in published.parts:
        streams.update(zip(part.streams, part.offsets, strict=True))
    return Accepted(published.push_id, "accepted", streams, UNSET if receipt is None else receipt_of(receipt))


def not_accepted(published: fabric.Published, has_key: bool) -> Problem:
    """What is answered to a push that is not kept, or not everywhere, or perhaps not.

    Args:
        published: its status is not "ok".
        has_key: its publisher gave it a key.
    """
    failed = [part for part in published.parts if part.status != "ok"]
    whys = "; ".join(f"{part.router}: {part.why or part.status}" for part in failed)
    match published.status:
        case "conflict":
            advice = "its key was used before, with other recipients, or another body, op or ttl"
        case "unavailable":
            advice = f"nothing was kept; try again in {published.retry_after_s} s"
        case _ if has_key:
            advice = "send it again with the same key: what was kept is not kept twice"
        case _:
            advice = "sent again without a key it may be pushed twice: give pushes a key"
    return Problem(
        _KINDS.get(published.status, DEFECT),
        f"{advice} ({whys})" if whys else advice,
        retry_after_s=published.retry_after_s if published.status == "unavailable" else None,
        id=published.push_id,
        parts=[_part(part) for part in published.parts],
    )


def receipt_of(receipt: fabric.Receipt) -> Receipt:
    """What is answered about what became of a push."""
    return Receipt(
        receipt.push_id,
        receipt.targeted,
        receipt.delivered,
        receipt.offline,
        receipt.gone,
        receipt.shed,
        receipt.expired,
        receipt.unknown,
        receipt.pending,
        dict(receipt.hops_ms),
        list(receipt.silent),
        list(receipt.forgotten),
    )


def ledger_of(totals: fabric.Totals) -> Ledger:
    """What is answered about what became of all pushes."""
    return Ledger(
        totals.pushes,
        totals.targeted,
        totals.delivered,
        totals.gone,
        totals.shed,
        totals.expired,
        totals.unknown,
        totals.pending,
        totals.offline,
        totals.is_balanced,
        list(totals.silent),
    )


def history_of(history: fabric.History) -> History:
    """What is answered about a piece of a stream."""
    messages: list[Message] = []
    for kept in history.messages:
        json = as_json(kept.body)
        body = {"base64": kept.body} if json is None else {"body": json}
        messages.append(Message(kept.offset, kept.time_ms, kept.op, **body))
    return History(history.stream, history.epoch, history.first, history.head, messages)


def unread_of(stream: str, unread: fabric.Unread) -> Unread:
    """What is answered about what a user has not acknowledged."""
    return Unread(stream, unread.epoch, unread.head, unread.acknowledged, unread.unread)


def _part(part: fabric.Part) -> Part:
    offsets: list[int | None] = [*part.offsets] if part.status == "ok" else [None] * len(part.streams)
    return Part(part.router, part.status, dict(zip(part.streams, offsets, strict=True)), part.why)

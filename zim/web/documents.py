"""What the native API answers that is no value of the domain: pushes that were accepted or not, and messages as JSON.

All else that it answers is a value of `zim.fabric.answers`, as it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from zim.fabric.answers import Piece, Receipt
from zim.fabric.names import shown
from zim.fabric.push import Published, Status
from zim.json_text import as_json
from zim.web.problems import CONFLICT, DEFECT, FORBIDDEN, LIMITED, UNAVAILABLE, UNKNOWN, Kind, Problem

_RAW = msgspec.json.Decoder(Raw)
_KINDS: dict[Status, Kind] = {"unavailable": UNAVAILABLE, "unknown": UNKNOWN, "conflict": CONFLICT, "limited": LIMITED}


class Accepted(msgspec.Struct):
    """A push that is kept."""

    id: Annotated[str, Meta(description="names the push")]
    status: Literal["accepted"]
    streams: Annotated[dict[str, int], Meta(description="where it is: its offset in each stream")]
    receipt: Receipt | UnsetType = UNSET


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


def accepted(published: Published, receipt: Receipt | UnsetType = UNSET) -> Accepted:
    """What is answered to a push that is kept."""
    streams = {stream: at for part in published.parts for stream, at in part.streams.items() if at is not None}
    return Accepted(published.push_id, "accepted", streams, receipt)


def not_accepted(published: Published, has_key: bool) -> Problem:
    """What is answered to a push that is not kept, or not everywhere, or perhaps not.

    Args:
        published: its status is not "ok".
        has_key: its publisher gave it a key.
    """
    if published.status == "forbidden":
        why = f"the API key has no scope push for {shown(published.forbidden)}"
        return Problem(FORBIDDEN, why, scope="push", stream=published.forbidden)
    if published.status == "limited" and published.refusal is not None:
        refusal = published.refusal
        members = {"limit": refusal.limit, "stream": refusal.stream or None, "id": published.push_id or None}
        return Problem(LIMITED, f"nothing was kept: {refusal.why}", retry_after_s=refusal.retry_after_s, **members)
    failed = [part for part in published.parts if part.status != "ok"]
    whys = "; ".join(dict.fromkeys(part.why for part in failed if part.why))
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
        parts=published.parts,
    )


def history_of(piece: Piece) -> History:
    """What is answered about a piece of a stream."""
    messages: list[Message] = []
    for kept in piece.messages:
        json = as_json(kept.body)
        body = {"base64": kept.body} if json is None else {"body": json}
        messages.append(Message(kept.offset, kept.time_ms, kept.op, **body))
    return History(piece.stream, piece.epoch, piece.first, piece.head, messages)

"""What became of a push, as a sentence. Pure."""

from __future__ import annotations

from zim.cli.lines import many
from zim.fabric.answers import Receipt
from zim.fabric.names import shown

NOBODY = "no session was there for it, or it still catches up"
ROOMS = 3  # that are named

_MEANS = {
    "gone": "whose connection was lost",
    "shed": "too slow",
    "expired": "too late for the ttl",
    "unknown": "of which nobody knows",
    "pending": "pending still",
}


def tell(receipt: Receipt, nobody: str = NOBODY) -> str:
    """The receipt in one line: who has it, who has not and why, who is offline, whose answer is missing.

    Args:
        nobody: why it was for nobody, if all that it was for was there.
    """
    parts = [_delivered(receipt, nobody)]
    if receipt.offline:
        parts.append(f"{many(receipt.offline, 'user')} {'is' if receipt.offline == 1 else 'are'} offline")
    if rooms := receipt.empty_rooms:
        names = ", ".join(map(shown, rooms[:ROOMS]))
        parts.append(f"nobody is in room{'s' * (len(rooms) > 1)} {names}{' and others' * (len(rooms) > ROOMS)}")
    if receipt.awaited and not receipt.pending:
        parts.append(f"{many(receipt.awaited, 'report')} of comets still to come")
    if receipt.silent:
        parts.append(f"no answer from {', '.join(receipt.silent)}: what they know is missing here")
    if receipt.forgotten:
        parts.append(f"{', '.join(receipt.forgotten)} crashed: what became of it there is forgotten")
    return "; ".join(parts)


def _delivered(receipt: Receipt, nobody: str) -> str:
    if not receipt.targeted:
        is_partial = receipt.awaited or receipt.silent or receipt.forgotten
        if is_partial:
            return "delivered to nobody that is known yet"
        is_told = receipt.offline or receipt.empty_rooms
        return f"delivered to nobody: {'no session was there for it' if is_told else nobody}"
    counts = [(getattr(receipt, name), means) for name, means in _MEANS.items()]
    others = [f"{count} {means}" for count, means in counts if count]
    if not others:
        return f"delivered to {many(receipt.delivered, 'session')}"
    return ", ".join([f"delivered to {receipt.delivered} of {many(receipt.targeted, 'session')}", *others])

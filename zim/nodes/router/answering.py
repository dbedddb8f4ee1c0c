"""What a router answers to each question. Pure: no socket, no clock; the disk is read through what it is handed.

There are five kinds of questions. What AT_ONCE asks for is in memory, whenever it is asked. WHOLE asks about the whole
directory, and waits while the router is rebuilding. COUNTED does so too, and what it asks for is counted in steps, see
`zim.nodes.router.counting`. STORED asks for what is on the disk, and waits in the queue of what is read.
KEPT is an order that is on the disk before it is in force.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from zim.fabric.answers import Forgotten, Ledger, Located, Reached, Receipt, Unread
from zim.fabric.limits import RECEIPT_NAMES
from zim.fabric.questions import (
    AnyQuestion,
    BanList,
    BanWho,
    ForgetComet,
    KickRoom,
    KickUser,
    LargestRooms,
    LiftBan,
    MoveUser,
    OnlineCounts,
    PushReceipt,
    RoomCount,
    UnreadCount,
    UserSessions,
    WholeLedger,
)
from zim.fabric.streams import user_stream
from zim.fabric.tally import Tally, account
from zim.nodes.effects import INFO
from zim.nodes.router.log.receipts import RouterReceipt
from zim.protocol.orders import Why

if TYPE_CHECKING:
    from zim.nodes.router.log.receipts import ReceiptStore
    from zim.nodes.router.shard import Shard
    from zim.nodes.router.streams import Streams

AT_ONCE = WholeLedger | ForgetComet | BanList
WHOLE = UserSessions | KickUser | MoveUser
COUNTED = RoomCount | LargestRooms | OnlineCounts | KickRoom
KEPT = BanWho | LiftBan
STORED = UnreadCount | PushReceipt


def answer_from_memory(question: AT_ONCE | WHOLE, shard: Shard[Any]) -> Struct:
    """The answer to a question of AT_ONCE, or to one of WHOLE if the directory is."""
    directory = shard.directory
    match question:
        case UserSessions(uid):
            places, n = directory.locate(uid)
            return Located(uid, n > 0, places, n - len(places))
        case KickUser(uid):
            why: Why = "sent away" if question.returns else "kicked"
            return Reached(shard.control.kick(uid, question.device, question.seq, why, question.reason))
        case MoveUser(uid):
            return Reached(shard.control.move(uid, question.join, question.leave, question.reason))
        case BanList(limit):
            return shard.control.list_bans(limit)
        case WholeLedger():
            ledger = shard.ledger
            return Ledger.of(ledger.pushes, account(ledger.tally, ledger.offline, shard.pending()))
        case ForgetComet(comet):
            feed = directory.feeds.get(comet)
            if feed is None or not feed.is_alive:
                return Forgotten(0)
            sessions = len(feed.sessions)
            shard.note(INFO, "sessions forgotten on request", comet=comet, sessions=sessions)
            directory.end(feed)
            return Forgotten(sessions)


def read_stored(question: AnyQuestion, streams: Streams, receipts: ReceiptStore) -> Any:
    """What the disk has to say to a question of STORED.

    Switches.

    Raises:
        ZimError: it does not tell.
    """
    match question:
        case UnreadCount(uid):
            stream = user_stream(uid)
            return streams.acknowledged([stream])[stream], streams.heads([stream])[stream]
        case PushReceipt(push_id):
            return receipts.find(push_id)
    raise AssertionError(question)


def answer_from_disk(question: AnyQuestion, found: Any, shard: Shard[Any], forgotten: Container[str]) -> Struct:
    """The answer to a question of STORED.

    Args:
        found: what `read_stored` gave.
        forgotten: ids of pushes that are in the log, and whose receipt a crash may have lost.
    """
    match question:
        case UnreadCount(uid):
            cursor, (epoch, floor, head) = found
            return Unread(user_stream(uid), epoch, head, cursor, head - max(floor, min(cursor, head)))
        case PushReceipt(push_id):
            parts = {r.serial: r for r in [*found, *shard.ledger.find(push_id)]}
            lost = [shard.name] if not parts and push_id in forgotten else []
            return sum_up(push_id, list(parts.values()), lost)
    raise AssertionError(question)


def sum_up(push_id: str, parts: Sequence[RouterReceipt], forgotten: list[str]) -> Receipt:
    """The receipt of a push over all its parts at one router. forgotten: see Receipt."""
    hops_ms: dict[str, float] = {"kept": 0} if forgotten else {}
    if parts:
        kept_ms = max(part.kept_ms for part in parts)
        hops_ms["kept"] = kept_ms - min(part.accepted_ms for part in parts)
        if reported_ms := max(part.reported_ms for part in parts):
            hops_ms["reported"] = reported_ms - kept_ms
    tally = sum((part.tally for part in parts), Tally())
    unserved = [stream for part in parts for stream in part.unserved][:RECEIPT_NAMES]
    n_offline, awaited = sum(part.offline for part in parts), sum(part.open_rows for part in parts)
    return Receipt.of(push_id, tally, n_offline, hops_ms, forgotten, unserved, awaited)

"""The messages between nodes, as frozen values; who sends each to whom stands in its first line.

One ZeroMQ message is one frame: a msgpack array of these, each an array `[name, field, …]`.
"""

from zim.protocol.messages.base import Item, Message
from zim.protocol.messages.feeds import (
    ENTRY_BYTES,
    ITEM_BYTES,
    Acknowledge,
    Acknowledged,
    Answer,
    Answers,
    Begin,
    Change,
    Changes,
    Del,
    Entry,
    Fetch,
    Fetched,
    Push,
    Put,
    Read,
    Record,
    Records,
    Renew,
    Renewed,
    Result,
    Room,
    Target,
    change_bytes,
    entry_bytes,
)
from zim.protocol.messages.requests import (
    Answered,
    Ask,
    Auth,
    Authed,
    Publish,
    PublishReply,
    Submit,
    Submitted,
)

__all__ = [
    "ENTRY_BYTES",
    "ITEM_BYTES",
    "Acknowledge",
    "Acknowledged",
    "Answer",
    "Answered",
    "Answers",
    "Ask",
    "Auth",
    "Authed",
    "Begin",
    "Change",
    "Changes",
    "Del",
    "Entry",
    "Fetch",
    "Fetched",
    "FromLogic",
    "Item",
    "Message",
    "Publish",
    "PublishReply",
    "Push",
    "Put",
    "Read",
    "Record",
    "Records",
    "Renew",
    "Renewed",
    "Result",
    "Room",
    "Submit",
    "Submitted",
    "Target",
    "ToAsker",
    "ToComet",
    "ToJob",
    "ToLogic",
    "ToPublisher",
    "ToRouter",
    "change_bytes",
    "entry_bytes",
]

# What each link carries.
ToRouter = Changes | Renew | Fetch | Read | Acknowledge | Publish | Ask
ToComet = Answers | Renewed | Fetched | Records | Acknowledged
ToJob = Push
ToAsker = PublishReply | Records | Answered
ToLogic = Auth | Submit
FromLogic = Authed
ToPublisher = Submitted

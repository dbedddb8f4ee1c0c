"""zim.client: for applications. Imports nothing of the nodes; runs in plain threads and in greenlets.

`Listener` receives what is pushed to a user, `Publisher` pushes over HTTP, `ZmqPublisher` over ZeroMQ.
"""

from zim.client.backoff import Backoff
from zim.client.errors import (
    AddressError,
    CertificateError,
    ClientError,
    ConnectionLost,
    LoginRefused,
    PushConflict,
    PushError,
    PushRefused,
    PushUnavailable,
    PushUnknown,
    PushUntrusted,
    SentAway,
    Unreachable,
)
from zim.client.listener import GoimListener, Listener
from zim.client.pending import PendingPush
from zim.client.publisher import Publisher
from zim.client.pushes import Accepted, Push
from zim.client.values import Event, Gap, Message, NotJoined, NotRecovered, Position, State
from zim.client.zeromq import ZmqPublisher
from zim.errors import ZimError
from zim.fabric.answers import Receipt
from zim.protocol.errors import WireError

__all__ = [
    "Accepted",
    "AddressError",
    "Backoff",
    "CertificateError",
    "ClientError",
    "ConnectionLost",
    "Event",
    "Gap",
    "GoimListener",
    "Listener",
    "LoginRefused",
    "Message",
    "NotJoined",
    "NotRecovered",
    "PendingPush",
    "Position",
    "Publisher",
    "Push",
    "PushConflict",
    "PushError",
    "PushRefused",
    "PushUnavailable",
    "PushUnknown",
    "PushUntrusted",
    "Receipt",
    "SentAway",
    "State",
    "Unreachable",
    "WireError",
    "ZimError",
    "ZmqPublisher",
]

"""zim.client: for applications. Imports nothing of the nodes; runs in plain threads and in greenlets.

`Listener` receives what is pushed to a user, `Publisher` pushes.
"""

from zim.client.backoff import Backoff
from zim.client.errors import (
    AddressError,
    ClientError,
    ConnectionLost,
    LoginRefused,
    PushError,
    PushRefused,
    PushUnavailable,
    PushUnknown,
    WireError,
    ZimError,
)
from zim.client.listener import Listener, Message, State
from zim.client.publisher import Publisher

__all__ = [
    "AddressError",
    "Backoff",
    "ClientError",
    "ConnectionLost",
    "Listener",
    "LoginRefused",
    "Message",
    "Publisher",
    "PushError",
    "PushRefused",
    "PushUnavailable",
    "PushUnknown",
    "State",
    "WireError",
    "ZimError",
]

"""What a client of goim v1 says. It has no streams: what is pushed while it is away does not come."""

from __future__ import annotations

import json
import re

from zim.client.token import Token, TokenSource
from zim.client.values import Event, Message
from zim.protocol.frame import Op, Packet


class GoimSession:
    """The same as zim.client.session.ZimSession, for goim's vocabulary.

    Attributes:
        heartbeat_s: not told.
        awaits_ack, is_due: never.
        token: where tokens come from. The fabric does not say when one ends.
    """

    version = 1
    heartbeat_s = 0.0
    is_due = False
    awaits_ack = False

    def __init__(self, token: Token) -> None:
        """Raises: ClientError: a token that cannot be."""
        self.token = TokenSource(token)

    def begin(self, transport: str) -> Packet:
        """The auth packet. goim's WebSocket clients name a numeric token as a JSON number, all else as a string."""
        token = str(self.token.take())
        is_number = re.fullmatch(r"-?(0|[1-9][0-9]*)", token)
        body = token if transport == "tcp" or is_number else json.dumps(token)
        return Packet(Op.AUTH, 1, 1, body.encode())

    def logged_in(self, reply: Packet) -> list[Event]:
        """Takes the answer to `begin`; there is nothing in it."""
        return []

    def receive(self, packet: Packet) -> list[Event]:
        """Takes any packet after the login: a message, whatever its op, but for the answers."""
        if packet.op in (Op.HEARTBEAT_REPLY, Op.AUTH_REPLY):
            return []
        return [Message("", 0, "", packet.op, packet.body)]

    def due(self) -> list[Packet]:
        """Nothing is ever to be said."""
        return []

    def refresh(self) -> Packet | None:
        """There is no word for it."""
        return None

    def taken(self, event: Event) -> None:
        """Nothing is acknowledged."""

    def ask_again(self) -> None:
        """Nothing was asked."""

"""Listens to what is pushed to a user, for as long as the application wants.

    with Listener(["127.0.0.1:8080", "127.0.0.1:8081"], token="7", rooms=["a"]) as listener:
        for event in listener:
            match event:
                case Message():
                    print(event.stream, event.offset, event.body)
                case Gap() | NotRecovered():
                    ...  # something is lost: load what it was about from elsewhere

Plain sockets: the same code runs in a thread and, monkey-patched, in a greenlet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, cast

from zim.client.backoff import Backoff
from zim.client.goim import GoimSession
from zim.client.lifeline import Lifeline
from zim.client.session import ZimSession
from zim.client.token import Token
from zim.client.values import Event, Gap, Message, Position, State
from zim.client.wire import MAX_PACKET_BYTES


class _Listening:
    """What both listeners have in common: they end."""

    _lifeline: Lifeline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the iteration. Any thread or greenlet may call it, and more than once."""
        self._lifeline.close()


class Listener(_Listening):
    """Speaks zim's own vocabulary: gives every message of a stream once and in order, and says what is lost.

    It reconnects by itself, to the next address, and goes on from where it was. What arrives (`for event in listener`):

    - Message: what was pushed.
    - Gap, NotRecovered: something of a stream is lost; what follows goes on after it.
    - NotJoined: a room that the token may not join, or that is away for the moment.

    The user's own stream starts at what the user has acknowledged, so that what was pushed while nobody listened comes
    first. Rooms start at their present end, or at a position of `resume`.

    Everything is sent by the thread that iterates, between two events: one that is busy with an event for longer than
    the fabric's heartbeat window (5 minutes by default) is disconnected, and connects again.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        token: Token,
        *,
        rooms: Iterable[str | int] | None = None,
        resume: Mapping[str, Sequence[Any]] | None = None,
        auto_ack: bool = False,
        device: str = "",
        platform: str = "",
        heartbeat_s: float = 30.0,
        timeout_s: float = 10.0,
        max_packet_bytes: int = MAX_PACKET_BYTES,
        backoff: Backoff | None = None,
        on_state: Callable[[State], object] | None = None,
        ca: str | os.PathLike[str] | None = None,
    ) -> None:
        """Does not connect yet; iterating does.

        Args:
            addresses: of one or several comets, `host:port` for TCP or `ws://host:port` for WebSocket;
                `wss://host` for WebSocket and `tls://host:port` for TCP with TLS.
            token: who this is: a JWT, or what the fabric's callout knows, or a number, the user's id, where anybody is
                believed. Or a function that gives one: it is called for each connection, and before one ends.
            rooms: a list of those to join, `["lobby"]`; the token's own if left out.
            resume: where to go on, as `resume` gave it earlier; JSON's lists will do.
            auto_ack: acknowledges each message of the user's own stream once the iteration asks for the next one.
            device, platform: for whoever looks at the session.
            heartbeat_s: between two heartbeats, if the fabric does not want them more often.
            timeout_s: for connecting and logging in, for a write, and for the reply to a heartbeat.
            max_packet_bytes: a packet or WebSocket message above this ends the connection.
            backoff: the waits between two attempts; 0.2 s to 10 s by default.
            on_state: called with each State, by the thread that iterates. Without it, a `token` that fails is a warning
                of the logger `zim.client.lifeline`, once.
            ca: for wss and tls, a file with the certificates of those who sign, in PEM; by default the system's store.

        Raises:
            AddressError: an address is none.
            ClientError: a token, a room or a position that cannot be, or `ca` is no such file.
        """
        about = {key: value for key, value in (("device", device), ("platform", platform)) if value}
        self._session = ZimSession(token, rooms, resume, about)
        self._lifeline = Lifeline(
            self._session, addresses, heartbeat_s, timeout_s, max_packet_bytes, backoff, on_state, acks=auto_ack, ca=ca
        )

    def __iter__(self) -> Iterator[Event]:
        """What arrives, without end until close(). One iteration at a time.

        Lost connections are told to `on_state`, never raised.

        Raises:
            CertificateError: no address is left whose certificate can be verified. One that cannot is left out until
                a connection to another is made.
            SentAway: the server says that there is no use in coming back.
            ClientError: somebody iterates already.
        """
        return self._lifeline.events()

    @property
    def resume(self) -> dict[str, Position]:
        """Epoch and offset of each stream, up to the last event that the iteration gave: keep it, and go on there."""
        return self._session.resume()

    @property
    def key(self) -> str:
        """This session's key: a push can be for it alone. "" before the first login."""
        return self._session.key

    @property
    def acknowledged(self) -> int:
        """Up to where the user's own stream is acknowledged for good: a new listener without `resume` starts there."""
        return self._session.acknowledged

    def join(self, *rooms: str | int, resume: Mapping[str, Sequence[Any]] | None = None) -> None:
        """Joins rooms, and stays in them over reconnects. Any thread may call it; does not wait.

        Args:
            resume: where to go on in their streams, `{"r:a": [epoch, offset]}`.

        Raises:
            ClientError: a room or a position that cannot be.
        """
        self._session.join(rooms, resume)
        self._lifeline.wake()

    def leave(self, *rooms: str | int) -> None:
        """Leaves rooms: nothing of them comes after this call. Any thread may call it; does not wait.

        Raises:
            ClientError: a room that cannot be.
        """
        self._session.leave(rooms)
        self._lifeline.wake()

    def ack(self, upto: Message | Gap | int) -> None:
        """Acknowledges the user's own stream up to this message, or offset, for all of the user's later sessions.

        Any thread may call it. Does not wait: `acknowledged` tells when it is durable. Messages of other streams are
        passed over.
        """
        self._session.ack(upto)
        self._lifeline.wake()


class GoimListener(_Listening):
    """Speaks goim v1's vocabulary, with goim or zim: gives what arrives while it is connected. Nothing is resumed."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        token: Token,
        *,
        heartbeat_s: float = 30.0,
        timeout_s: float = 10.0,
        max_packet_bytes: int = MAX_PACKET_BYTES,
        backoff: Backoff | None = None,
        on_state: Callable[[State], object] | None = None,
        ca: str | os.PathLike[str] | None = None,
    ) -> None:
        """Does not connect yet; iterating does. The arguments are Listener's.

        Raises:
            AddressError: an address is none.
            ClientError: `ca` is no file of certificates.
        """
        session = GoimSession(token)
        self._lifeline = Lifeline(
            session, addresses, heartbeat_s, timeout_s, max_packet_bytes, backoff, on_state, ca=ca
        )

    def __iter__(self) -> Iterator[Message]:
        """What arrives, as Listener's."""
        return cast(Iterator[Message], self._lifeline.events())

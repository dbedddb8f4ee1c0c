"""Pushes as they go out: each is encoded once per speech, when the first connection that speaks it comes up."""

from __future__ import annotations

from collections.abc import Sequence

from zim.fabric.audience import ALL, Audience
from zim.protocol.framings.base import Framing
from zim.protocol.speech import Speech


class Content:
    """What one push is in all its streams."""

    __slots__ = ("_bodies", "_parts", "body", "op")

    def __init__(self, op: int, body: bytes) -> None:
        self.op, self.body = op, body
        self._bodies: dict[Framing, bytes] = {}
        self._parts: dict[Speech, bytes] = {}

    def encoded_body(self, framing: Framing) -> bytes:
        """As it stands in a packet there."""
        found = self._bodies.get(framing)
        if found is None:
            found = self._bodies[framing] = framing.encode_body(self.body)
        return found

    def part(self, speech: Speech) -> bytes:
        """The packet, of a vocabulary that does not tell where it stands."""
        found = self._parts.get(speech)
        if found is None:
            packet = speech.vocabulary.encode_push(self.op, self.encoded_body(speech.framing), "", 0)
            found = self._parts[speech] = speech.framing.encode_part(packet)
        return found


class Encoded:
    """One push in one stream.

    Attributes:
        content: what it shares with the same push in other streams.
        stream, offset: where it is.
        audience: whom of the stream's subscribers it is for.
        expires_ms: log time of the stream's router from which on it is not sent; 0 for never.
    """

    __slots__ = ("_chunks", "audience", "content", "expires_ms", "offset", "stream")

    def __init__(
        self, content: Content, stream: str, offset: int, audience: Audience = ALL, expires_ms: int = 0
    ) -> None:
        self.content, self.stream, self.offset, self.audience = content, stream, offset, audience
        self.expires_ms = expires_ms
        self._chunks: dict[Speech, bytes] = {}

    def part(self, speech: Speech) -> bytes:
        """The packet, as it stands in a write that may carry several."""
        content, framing, vocabulary = self.content, speech.framing, speech.vocabulary
        if not vocabulary.tells_places:
            return content.part(speech)
        body = content.encoded_body(framing)
        return framing.encode_part(vocabulary.encode_push(content.op, body, self.stream, self.offset))

    def chunk(self, speech: Speech) -> bytes:
        """What goes to a socket if this push goes alone."""
        found = self._chunks.get(speech)
        if found is None:
            found = self._chunks[speech] = speech.framing.join([self.part(speech)])
        return found


def join(speech: Speech, pushes: Sequence[Encoded]) -> bytes:
    """Pushes, at least one, in order, as one write."""
    if len(pushes) == 1:
        return pushes[0].chunk(speech)
    return speech.framing.join([push.part(speech) for push in pushes])

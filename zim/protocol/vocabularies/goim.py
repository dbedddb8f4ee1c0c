"""goim v1: what is pushed while a client is connected, and nothing of streams.

    op       from     body
    7, 8     client   the token; the reply has none
    5        server   a push, with version 0 and seq 0

(goim `libs/define/operation.go`.) What goim does not like it closes without a word.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from typing_extensions import override

from zim.protocol.frame import Op, Packet
from zim.protocol.vocabularies.base import Login, Start, Vocabulary


def is_zims(body: bytes) -> bool:
    """An auth body is one of zim's own protocol, an object with a token: its client has forgotten the version."""
    try:
        return "token" in msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


class Goim(Vocabulary):
    """See the module."""

    __slots__ = ()

    @override
    def parse_login(self, body: bytes) -> Login:
        return Login(body)

    @override
    def encode_push(self, op: int, body: bytes, stream: str, offset: int) -> Packet:
        return Packet(op, 0, 0, body)

    @override
    def encode_opened(
        self, asked: Packet, key: str, heartbeat_s: float, starts: Sequence[Start], expires_s: float | None
    ) -> Packet:
        return Packet(Op.AUTH_REPLY, asked.seq, asked.version)


GOIM = Goim()

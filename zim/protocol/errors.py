"""What is wrong with bytes that came from outside."""

from zim.errors import ZimError


class WireError(ZimError):
    """A client broke the wire. It closes its own connection and nothing else.

    Attributes:
        reason: what was wrong, short and without the client's own bytes.
        code: the close code for WebSocket clients (RFC 6455 7.4.1); 0 to close without a close frame, as goim v1 does.
    """

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class CodecError(ZimError):
    """A message from another node is not one of ours: not msgpack, not a known message, or a field of another type."""

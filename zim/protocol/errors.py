"""What is wrong with bytes that came from outside."""

from zim.errors import ZimError
from zim.protocol.endings import Ending


class WireError(ZimError):
    """A client broke the wire. It closes its own connection and nothing else.

    Attributes:
        reason: what was wrong, short and without the client's own bytes.
        code: what the framing wants in its close frame (RFC 6455 7.4.1); 0 for what the kind of ending wants.
        ending: its kind.
    """

    def __init__(self, reason: str, code: int = 0, ending: Ending = Ending.PACKET) -> None:
        super().__init__(reason)
        self.reason, self.code, self.ending = reason, code, ending


class CodecError(ZimError):
    """A message from another node is not one of ours: not msgpack, not a known message, or a field of another type."""

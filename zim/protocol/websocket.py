"""WebSocket frames as a server sends them: bytes ⇄ values (RFC 6455 5.2). A server never masks.

Reading is gevent-websocket's, with what it lacks around it: see zim.nodes.comet.websocket.
"""

import struct

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CLOSE_REASON_BYTES = 123  # a control frame carries 125, two of them the code (RFC 6455 5.5)


def frame(opcode: int, body: bytes) -> bytes:
    """One whole frame (FIN set) around body."""
    size = len(body)
    if size < 126:
        return bytes((0x80 | opcode, size)) + body
    if size < 65536:
        return struct.pack(">BBH", 0x80 | opcode, 126, size) + body
    return struct.pack(">BBQ", 0x80 | opcode, 127, size) + body


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; the reason is cut to what a control frame holds, at a character."""
    text = reason.encode()[:CLOSE_REASON_BYTES].decode(errors="ignore").encode()
    return frame(CLOSE, struct.pack(">H", code) + text)


def unmask(body: bytes, mask: bytes) -> bytes:
    """Undoes a client's masking (RFC 6455 5.3), as one big XOR instead of a loop over bytes."""
    size = len(body)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(body, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")

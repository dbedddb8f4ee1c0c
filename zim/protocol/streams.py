"""Canonical names of streams: `u:7` is a user's, `r:1` a room's, `*` everybody's. Hashed in UTF-8."""

EVERYBODY = "*"  # a stream, and the room that everybody is in


def user_stream(uid: str) -> str:
    """The stream of a user."""
    return "u:" + uid


def room_stream(room: str) -> str:
    """The stream of a room; `*` is its own."""
    return room if room == EVERYBODY else "r:" + room


def is_user_stream(stream: str) -> bool:
    """Whether it is a user's."""
    return stream.startswith("u:")

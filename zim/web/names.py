"""What users, rooms and idempotency keys may be called.

Source: draft-ietf-httpapi-idempotency-key-header-07: the header's value is a string of RFC 8941 3.3.3, ASCII in
quotation marks; many clients send the key bare.
"""

from __future__ import annotations

import re

from zim.fabric import streams

MAX_NAME_BYTES = 253  # a stream's name has two more: `u:`, `r:`
MAX_KEY_BYTES = 255

NAME = f"1 to {MAX_NAME_BYTES} bytes of UTF-8 without control characters"
HEADER = (
    f"one key of 1 to {MAX_KEY_BYTES} printable ASCII characters; "
    "in quotation marks, or bare if there is neither a comma nor a quotation mark in it"
)
NAME_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]+$"  # for documents; here it would let a last line feed pass

_QUOTED = r'"([ !#-\[\]-~]|\\["\\]){1,255}"'
_BARE = r"[!#-+\--~][ !#-+\--~]{0,254}"  # two headers of one name arrive as one, with a comma
HEADER_PATTERN = f"^({_QUOTED}|{_BARE})$"

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_HEADER = re.compile(HEADER_PATTERN)
_ESCAPE = re.compile(r"\\(.)")


def is_name(text: str) -> bool:
    """Whether something may be called so."""
    if text.isascii() and text.isprintable():
        return 0 < len(text) <= MAX_NAME_BYTES
    return _NAME.fullmatch(text) is not None and len(text.encode()) <= MAX_NAME_BYTES


def user_of_key(key: str) -> str | None:
    """The user in a session's key; None: it is no key."""
    user = streams.user_of_key(key)
    return user if is_name(user) else None


def parse_idempotency_key(header: str) -> str:
    """The key in the value of an Idempotency-Key header: bare, or in quotation marks; both are the same key.

    Raises:
        ValueError: it is none. Its text says what one is.
    """
    if not _HEADER.fullmatch(header):
        raise ValueError(f"a key is {HEADER}")
    return _ESCAPE.sub(r"\1", header[1:-1]) if header.startswith('"') else header

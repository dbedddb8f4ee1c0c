"""What users, rooms and idempotency keys may be called.

Source: draft-ietf-httpapi-idempotency-key-header-07 (a string of RFC 8941 3.3.3, in quotation marks); many clients send
the key bare.
"""

from __future__ import annotations

import re

MAX_NAME_BYTES = 255

NAME = f"1 to {MAX_NAME_BYTES} bytes of UTF-8 without control characters"
NAME_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]+$"  # for documents; here it would let a last line feed pass

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_BARE = re.compile(r'[^",]+')  # two headers of one name arrive as one, with a comma
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_SESSION_KEY = re.compile(r"(.+)_([1-9][0-9]{0,18})")


def is_name(text: str) -> bool:
    """Whether something may be called so."""
    if text.isascii() and text.isprintable():
        return 0 < len(text) <= MAX_NAME_BYTES
    return _NAME.fullmatch(text) is not None and len(text.encode()) <= MAX_NAME_BYTES


def user_of_key(key: str) -> str | None:
    """The user in a session's key, `7` in `7_12`; None: it is no key."""
    match = _SESSION_KEY.fullmatch(key)
    return match[1] if match and is_name(match[1]) else None


def parse_idempotency_key(header: str) -> str:
    """The key in the value of an Idempotency-Key header: bare, or in quotation marks; both are the same key.

    Args:
        header: as WSGI gives it, bytes read as Latin-1.

    Raises:
        ValueError: it is none. Its text says why.
    """
    try:
        text = header.encode("latin-1").decode()
    except UnicodeError:
        raise ValueError("not UTF-8") from None
    if match := _QUOTED.fullmatch(text):
        key = re.sub(r"\\(.)", r"\1", match[1])
    elif _BARE.fullmatch(text) and text == text.strip():
        key = text
    else:
        raise ValueError("a key with a comma or a quotation mark in it has to be in quotation marks, and only one sent")
    if not is_name(key):
        raise ValueError(f"a key is {NAME}")
    return key

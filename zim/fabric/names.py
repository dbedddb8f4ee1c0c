"""What users, rooms and idempotency keys may be called. One validator each, and one text that says what is right."""

from __future__ import annotations

import re

from zim.fabric.limits import KEY_BYTES, NAME_BYTES

_TEXT = "bytes of UTF-8 without control characters"
NAME = f"1 to {NAME_BYTES} {_TEXT}"
KEY = f"1 to {KEY_BYTES} {_TEXT}"

CHARACTER_PATTERN = r"[^\u0000-\u001f\u007f-\u009f]"  # for JSON Schema, which knows no surrogates
NAME_PATTERN = f"^{CHARACTER_PATTERN}+$"

_CLEAN = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # C0, DEL and C1; half a surrogate pair is not UTF-8


def is_name(text: str) -> bool:
    """Whether a user or a room may be called so."""
    return _is_text(text, NAME_BYTES)


def is_key(text: str) -> bool:
    """Whether it can be an idempotency key."""
    return _is_text(text, KEY_BYTES)


def _is_text(text: str, most_bytes: int) -> bool:
    if text.isascii() and text.isprintable():
        return 0 < len(text) <= most_bytes
    return _CLEAN.fullmatch(text) is not None and len(text.encode()) <= most_bytes


def shown(text: str) -> str:
    """A name as it stands in an error: quoted, and not longer than a line."""
    return f"{text[:32]!r}…" if len(text) > 32 else repr(text)

"""The header Idempotency-Key. In a header a key can have printable ASCII only; in a document it is any key.

Source: draft-ietf-httpapi-idempotency-key-header-07: the header's value is a string of RFC 8941 3.3.3, ASCII in
quotation marks; many clients send the key bare.
"""

from __future__ import annotations

import re

from zim.fabric.limits import KEY_BYTES
from zim.fabric.names import is_key

HEADER = (
    f"one key of 1 to {KEY_BYTES} printable ASCII characters; "
    "in quotation marks, or bare if there is neither a comma nor a quotation mark in it"
)
_QUOTED = rf'"([ !#-\[\]-~]|\\["\\]){{1,{KEY_BYTES}}}"'
_BARE = rf"[!#-+\--~][ !#-+\--~]{{0,{KEY_BYTES - 1}}}"  # two headers of one name arrive as one, with a comma
HEADER_PATTERN = f"^({_QUOTED}|{_BARE})$"

_HEADER = re.compile(HEADER_PATTERN)
_ESCAPE = re.compile(r"\\(.)")


def parse_idempotency_key(header: str | None) -> str:
    """The key in the value of the header: bare, or in quotation marks; both are the same key. "" without a header.

    Raises:
        ValueError: it is none. Its text says what one is.
    """
    if header is None:
        return ""
    key = _ESCAPE.sub(r"\1", header[1:-1]) if header.startswith('"') else header
    if not _HEADER.fullmatch(header) or not is_key(key):
        raise ValueError(f"a key is {HEADER}")
    return key

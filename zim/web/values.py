"""How goim v1 reads parameters: Go's strconv, net/url and encoding/json, where Python's own rules are others.

Source: goim v1.2 `logic/http.go`; Go `strconv/atoi.go`, `encoding/json/decode.go`, `ParseQuery` in `net/url/url.go`,
which drops malformed pairs.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

from zim.json_text import STRICT, Scanner

_INTEGER = re.compile(r"([+-]?)0*([0-9]+)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLAIN_ARRAY = re.compile(r'null|\[[^\[\]{}"]*\]')
_UIDS = msgspec.json.Decoder(list[int | float | None] | None)


def parse_int(text: str, bits: int) -> int | None:
    """What `strconv.ParseInt(text, 10, bits)` gives; None where it fails.

    No spaces, underscores or other alphabets' digits, and nothing outside the range.
    """
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    sign, digits = match.groups()
    if len(digits) > 19:  # more than an int64 has; int() refuses 4,301 digits with an error of its own
        return None
    number = int(sign + digits)
    return number if -(1 << bits - 1) <= number < 1 << bits - 1 else None


def query_value(query: str, key: str) -> str:
    """What `url.Query().Get(key)` gives for a raw query string: the first value of the key, "" without one."""
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if _unescape(name) == key and ";" not in pair:
            unescaped = _unescape(value)
            if unescaped is not None:
                return unescaped
    return ""


def _unescape(text: str) -> str | None:
    """What `url.QueryUnescape` gives; None where it fails. Bytes that are not ASCII may come out changed."""
    if "%" in text:
        return None if _BAD_ESCAPE.search(text) else unquote(text.replace("+", " "), "latin-1")
    return text.replace("+", " ")


def parse_pushs(document: bytes) -> tuple[list[int], bytes]:
    """The uids and the body in `{"u":[1,2],"m":…}`, as Go's encoding/json finds them.

    Keys in any case, of equal ones the last; `m` is the bytes of its value, as they are, and empty without one; a null
    among the uids is 0. Read as Latin-1, so that every byte stays where it is: like Go this takes strings that are not
    UTF-8, and lone surrogates.

    Raises:
        ValueError: goim would answer 65535, or `m` is nested deeper than Python's parser goes (about 1,000; Go 10,000).
    """
    try:
        return _parse_pushs(document.decode("latin-1"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parse_pushs(text: str) -> tuple[list[int], bytes]:
    uids: list[int] = []
    body = b""
    if text.strip(" \t\r\n") == "null":
        return uids, body
    scanner = Scanner(text, STRICT)
    scanner.want("{")
    for key, raw in scanner.items("}", lambda: _member(scanner)):
        match key:
            case "u":
                uids = _parse_uids(raw.encode("latin-1"))
            case "m":
                body = raw.encode("latin-1")
    scanner.end()
    return uids, body


def _member(scanner: Scanner) -> tuple[str, str]:
    """A key in small letters, and how its value is written. Uids that are something else are not read to their end."""
    key = scanner.key().lower()
    return key, scanner.match(_PLAIN_ARRAY) if key == "u" else scanner.value()[1]


def _parse_uids(array: bytes) -> list[int]:
    try:
        numbers = _UIDS.decode(array) or []
    except msgspec.MsgspecError as error:
        raise ValueError("not an array of integers") from error
    kinds = set(map(type, numbers))  # all of them in C: there may be half a million
    uids = [number or 0 for number in numbers] if type(None) in kinds else numbers
    if float in kinds or (uids and not (min(uids) >= -(1 << 63) and max(uids) < 1 << 63)):
        raise ValueError("not an int64")
    return uids

"""How `zim listen` writes a message: as a line of output. Pure."""

from __future__ import annotations

import base64
import json
import re

from zim.client import Message
from zim.json_text import is_json

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # C0, DEL and C1: they move cursors, change colours, and end lines
_ENDS = re.compile(r"[\n\r\t]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def body_line(message: Message) -> bytes:
    """The body alone, as it is."""
    return message.body


def placed_line(message: Message) -> bytes:
    """Stream, offset and body."""
    return b"%s %d %s" % (message.stream.encode(), message.offset, message.body)


def json_line(message: Message, received_at: str) -> bytes:
    """A JSON object on one line, without control characters.

    Its body is in one of two fields: in `body` the JSON value, as it is written, or a string where it is UTF-8 and no
    JSON; in `base64` all other bytes.
    """
    place = {"stream": message.stream, "offset": message.offset} if message.stream else {}
    rest = json.dumps({"received_at": received_at, **place}, ensure_ascii=False)[1:]
    line = f'{{"op": {message.op}, {_body_field(message.body)}, {rest}'
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line).encode()


def _body_field(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f'"base64": "{base64.b64encode(body).decode()}"'
    # JSON has these between values alone, where a blank means the same.
    return f'"body": {_ENDS.sub(" ", text) if is_json(body) else json.dumps(text, ensure_ascii=False)}'


def visible(text: str) -> str:
    r"""The text as a terminal may have it: control characters are escapes such as `\x1b` and `\n`."""
    return _CONTROL.sub(lambda found: _SHORT.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def printable(name: str) -> str:
    r"""A name as it may go to a terminal: whatever is not printable is written as in Python, `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def visible_line(line: bytes) -> bytes:
    r"""A line as a terminal may have it; what is not UTF-8 becomes `\xff`."""
    return visible(line.decode(errors="backslashreplace")).encode()


def many(count: int, what: str) -> str:
    """So many of something: `1 session`, `1,000 sessions`."""
    return f"{count:,} {what}{'s' * (count != 1)}"

"""Python's values → parameters, many rows in a few arrays. Pure.

Of whole numbers the text form, which Python makes in one step; of bytes and texts the binary one, which needs no
quoting. psycopg's own arrays take several times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from psycopg.adapt import Dumper
from psycopg.pq import Format
from typing_extensions import override

_BYTEA, _TEXT, _INT8 = 17, 25, 20  # https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
_INT8S, _BYTEAS, _TEXTS = 1016, 1001, 1009

# dimensions 4 | has NULLs 4 | type 4 | length 4 | first index 4; then each: bytes 4 (-1 for NULL) | value
_ARRAY = struct.Struct(">iiIii")
_SIZE = struct.Struct(">i")
_NULL = _SIZE.pack(-1)
_ID_BYTES = 16


class Whole(bytes):
    """An array of whole numbers, as PostgreSQL reads it."""


class Blobs(bytes):
    """An array of bytes, or NULL."""


class Texts(bytes):
    """An array of texts."""


def wholes(values: Sequence[int]) -> Whole:
    """An array of int8."""
    return Whole(b"{%s}" % repr(list(values))[1:-1].encode())


def blobs(values: Sequence[bytes | None]) -> Blobs:
    """An array of bytea."""
    return Blobs(_array(_BYTEA, values))


def texts(values: Iterable[str]) -> Texts:
    """An array of text."""
    return Texts(_array(_TEXT, [value.encode() for value in values]))


def _array(of: int, values: Sequence[bytes | None]) -> bytes:
    if not values:
        return _ARRAY.pack(0, 0, of, 0, 0)[:12]
    pack = _SIZE.pack
    parts = [_ARRAY.pack(1, int(None in values), of, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (pack(len(value)), value)
    return b"".join(parts)


def pack_id(push_id: str) -> bytes:
    """A push id as it is stored. Most are 16 bytes in hex; any other text ends with NUL, and never has 16 bytes."""
    if len(push_id) == 2 * _ID_BYTES:
        try:
            found = bytes.fromhex(push_id)
        except ValueError:
            pass
        else:
            if found.hex() == push_id:
                return found
    text = push_id.encode() + b"\0"
    return text + b"\0" if len(text) == _ID_BYTES else text


def unpack_id(stored: bytes) -> str:
    """What `pack_id` made.

    Raises:
        UnicodeDecodeError: it did not.
    """
    return stored.hex() if len(stored) == _ID_BYTES else stored.rstrip(b"\0").decode()


class _AsIs(Dumper):
    @override
    def dump(self, obj: bytes) -> bytes:
        return bytes(obj)


class WholeDumper(_AsIs):
    """Of Whole."""

    oid = _INT8S


class BlobsDumper(_AsIs):
    """Of Blobs."""

    format = Format.BINARY
    oid = _BYTEAS


class TextsDumper(_AsIs):
    """Of Texts."""

    format = Format.BINARY
    oid = _TEXTS


class NumberDumper(Dumper):
    """A whole number is always an int8: of several types there would be several statements."""

    format = Format.BINARY
    oid = _INT8

    @override
    def dump(self, obj: int) -> bytes:
        return struct.pack(">q", obj)

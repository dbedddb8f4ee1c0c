"""JSON documents and query strings in, msgspec structs out; what is wrong with them comes out as a Problem.

What a field takes is said once, in its struct: msgspec checks it, the OpenAPI document shows it, and the description of
the field becomes the `expected` of a problem.
"""

from __future__ import annotations

import json
import re
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec

from zim.web.problems import INVALID_VALUE, MALFORMED_JSON, UNKNOWN_FIELD, Problem

T = TypeVar("T", bound=msgspec.Struct)

MAX_PARAMETERS = 20
MAX_SHOWN = 100  # characters of what a client wrote, in what is answered

_AT = re.compile(r"(.*) - at `\$\.?([\w.\[\]]*)`", re.DOTALL)  # msgspec: what is wrong, and where
_FIELD = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`", re.DOTALL)
_BYTE = re.compile(r"(?:JSON is malformed: )?(.*) \(byte ([0-9]+)\)")
_INDEX = re.compile(r"\[[^]]*\]")
_ESCAPED_LETTER = re.compile(rb"\\u00[3-7]")  # 0 to DEL: what a key of ours can be spelled with
_TOO_DEEP = "nested too deeply"


class Reader(Generic[T]):
    """Reads one type of struct, and those directly in it.

    Args:
        struct: what to read. It forbids unknown fields.
    """

    def __init__(self, struct: type[T]) -> None:
        self._struct = struct
        self._decoder = msgspec.json.Decoder(struct)
        self._known: dict[str, list[str]] = {}  # the fields of the objects by their paths
        self._expected: dict[str, str] = {}  # what fields take, by their paths
        _, schemas = msgspec.json.schema_components([struct], ref_template="{name}")
        self._learn("", schemas[struct.__name__], schemas)
        names = sorted({name for names in self._known.values() for name in names}, key=len)
        self._names = re.compile(rf'"({"|".join(names)})"[ \t\r\n]*:'.encode())

    def read(self, document: bytes) -> T:
        """A JSON document.

        Raises:
            Problem: it is not JSON, or not such a document.
        """
        try:
            if not document.isascii():
                document.decode()  # msgspec.Raw takes any bytes in a string
            value = self._decoder.decode(document)
            self._check_duplicates(document)
        except UnicodeDecodeError as error:
            raise _malformed(document, "not UTF-8", error.start) from None
        except msgspec.ValidationError as error:
            raise self._invalid(str(error), "field") from None
        except msgspec.DecodeError as error:
            match = _BYTE.fullmatch(str(error))
            why, at = (match[1], int(match[2])) if match else ("it ends too early", len(document))
            at -= why == "trailing characters"  # msgspec counts their first one
            raise _malformed(document, why, at) from None
        except RecursionError:
            raise Problem(MALFORMED_JSON, _TOO_DEEP) from None
        return value

    def read_query(self, query: str) -> T:
        """The part of a URL behind the question mark, as WSGI gives it.

        Raises:
            Problem: a parameter is unknown, twice there, or has a value that it does not take.
        """
        try:
            query = query.encode("latin-1").decode()
            pairs = parse_qsl(query, True, bool(query), errors="strict", max_num_fields=MAX_PARAMETERS)
        except ValueError:
            raise Problem(INVALID_VALUE, "the query string is broken", expected="name=value&name=value") from None
        _refuse_twice([name for name, _ in pairs], "", "parameter")
        try:
            return msgspec.convert(dict(pairs), self._struct, strict=False)
        except msgspec.ValidationError as error:
            raise self._invalid(str(error), "parameter") from None

    def _learn(self, path: str, schema: dict[str, Any], schemas: dict[str, Any]) -> None:
        properties: dict[str, Any] = schema["properties"]
        self._known[path] = list(properties)
        for name, field in properties.items():
            field_path = f"{path}.{name}".lstrip(".")
            self._expected[field_path] = field["description"]
            if "$ref" in field:
                self._learn(field_path, schemas[field["$ref"]], schemas)

    def _invalid(self, message: str, word: str) -> Problem:
        """A ValidationError of msgspec as a Problem."""
        match = _AT.fullmatch(message)
        what, path = (match[1], match[2]) if match else (message, "")
        field = _FIELD.fullmatch(what)
        if field is None:
            return invalid(path, f"{what[:1].lower()}{what[1:]}", self._expected.get(_INDEX.sub("", path), "an object"))
        name = field[1][:MAX_SHOWN]
        key = f"{path}.{name}".lstrip(".")
        if what.startswith("Object missing"):
            return invalid(key, "it is missing", self._expected[key])
        known = self._known.get(path, [])
        where = f"{path} has" if path else "there are"
        why = f"no {word} is called {name!r}; {where} {', '.join(known) or 'none'}"
        return Problem(UNKNOWN_FIELD, why, key=key, known=known)

    def _check_duplicates(self, document: bytes) -> None:
        """Refuse a field that is there twice: msgspec takes the last one, a proxy may see the first."""
        names = self._names.findall(document)
        if len(names) == len(set(names)) and not _ESCAPED_LETTER.search(document):
            return
        value = _PAIRS.decode(document.decode())
        for path in self._known:  # the outermost object first
            members = dict(value).get(path, ()) if path else value
            _refuse_twice([name for name, _ in members], path, "field")


class _Pairs(list[tuple[str, Any]]):
    """An object's members."""


# Numbers stay text: Python would refuse to convert very long ones.
_PAIRS = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=str, parse_float=str)


def invalid(key: str, why: str, expected: str) -> Problem:
    """The problem of a value that is wrong."""
    return Problem(INVALID_VALUE, f"{key}: {why}" if key else why, key=key or None, expected=expected)


def _refuse_twice(names: list[str], path: str, word: str) -> None:
    for name in names if len(names) > len(set(names)) else ():
        if names.count(name) > 1:
            raise invalid(f"{path}.{name}".lstrip("."), f"the {word} is there {names.count(name)} times", "it once")


def _malformed(document: bytes, why: str, at: int) -> Problem:
    """Not JSON, at a byte of the document."""
    before = document[:at]
    line, column = before.count(b"\n") + 1, at - before.rfind(b"\n")
    detail = f"not JSON at line {line}, column {column}: {why}"
    return Problem(MALFORMED_JSON, detail, line=line, column=column)

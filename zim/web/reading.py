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

from zim.json_text import ESCAPED_HALF, MAX_DEPTH, PAIRS, STRICT, Scanner, is_too_deep
from zim.web.problems import INVALID_VALUE, MALFORMED_JSON, UNKNOWN_FIELD, Problem

T = TypeVar("T", bound=msgspec.Struct)

MAX_PARAMETERS = 20
MAX_SHOWN = 100  # characters of what a client wrote, in what is answered

_AT = re.compile(r"(.*) - at `\$\.?([\w.\[\]]*)`", re.DOTALL)  # msgspec: what is wrong, and where
_FIELD = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`", re.DOTALL)
_BYTE = re.compile(r"(?:JSON is malformed: )?(.*) \(byte ([0-9]+)\)")
_INDEX = re.compile(r"\[[^]]*\]")
_ESCAPED_LETTER = re.compile(rb"\\u00[3-7]")  # 0 to DEL: what a key of ours can be spelled with
_GOT_NULL = "got `null`"
_NUMBER = re.compile(r"-?[0-9]{1,20}", re.ASCII)


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
        fields = msgspec.structs.fields(struct)
        self._passed_on = {field.name for field in fields if field.default_factory is msgspec.Raw}
        self._whole = {field.name for field in fields if _is_whole(field.type)}
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
            if is_too_deep(document):
                raise Problem(MALFORMED_JSON, f"nested more than {MAX_DEPTH} deep")
            value = self._decode(document)
            self._check_duplicates(document)
        except UnicodeDecodeError as error:
            raise _malformed(document, "not UTF-8", error.start) from None
        except msgspec.ValidationError as error:
            raise self._invalid(str(error), "field") from None
        except msgspec.DecodeError as error:
            match = _BYTE.fullmatch(str(error))
            why, at = (match[1], int(match[2])) if match else ("it ends too early", len(document))
            at -= why == "trailing characters"  # msgspec counts their first one
            if "surrogate" in why or (not match and ESCAPED_HALF.search(document)):
                why = "half a surrogate pair, which only a body may have"
            raise _malformed(document, why, at) from None
        return value

    def _decode(self, document: bytes) -> T:
        """msgspec takes no half of a surrogate pair, not even in what is only passed on."""
        try:
            return self._take(document)
        except msgspec.DecodeError as error:
            if isinstance(error, msgspec.ValidationError) or not ESCAPED_HALF.search(document):
                raise
            try:
                plain, passed_on = self._part(document.decode())
            except ValueError:
                raise error from None
            value = self._take(plain)
            for name, raw in passed_on.items():
                setattr(value, name, msgspec.Raw(raw))
            return value

    def _take(self, document: bytes) -> T:
        """null is absence, but for what is passed on."""
        try:
            return self._decoder.decode(document)
        except msgspec.ValidationError as error:
            if _GOT_NULL not in str(error) or not document.lstrip().startswith(b"{"):
                raise
        try:
            less = self._without_nulls(document.decode(), "")
        except ValueError:
            msgspec.json.decode(document)  # what comes behind the null is no JSON, and this says where
            raise
        return self._decoder.decode(less)

    def _without_nulls(self, text: str, path: str) -> str:
        """An object without those of its fields that are null."""
        scanner, members = Scanner(text, STRICT), list[str]()
        scanner.want("{")
        for key, _, raw in scanner.items("}", scanner.member):
            field = f"{path}.{key}".lstrip(".")
            if raw == "null" and field in self._expected and field not in self._passed_on:
                continue
            is_object = field in self._known and raw.startswith("{")
            members.append(f"{json.dumps(key)}:{self._without_nulls(raw, field) if is_object else raw}")
        scanner.end()
        return f"{{{','.join(members)}}}"

    def _part(self, text: str) -> tuple[bytes, dict[str, bytes]]:
        """The document without what it passes on, and that."""
        scanner, members, passed_on = Scanner(text, STRICT), list[str](), dict[str, bytes]()
        scanner.want("{")
        for key, _, raw in scanner.items("}", scanner.member):
            if key in self._passed_on:
                passed_on[key] = raw.encode()
            members.append(f"{json.dumps(key)}:{0 if key in self._passed_on else raw}")
        scanner.end()
        return f"{{{','.join(members)}}}".encode(), passed_on

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
        for name, value in pairs:
            if name in self._whole and not _NUMBER.fullmatch(value):  # msgspec takes 1e3
                raise invalid(name, f"{value[:MAX_SHOWN]!r} is no whole number", self._expected[name])
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
        value = PAIRS.decode(document.decode())
        for path in self._known:  # the outermost object first
            members = dict(value).get(path, ()) if path else value
            _refuse_twice([name for name, _ in members], path, "field")


def _is_whole(kind: Any) -> bool:
    found = msgspec.inspect.type_info(kind)
    if isinstance(found, msgspec.inspect.Metadata):
        found = found.type
    return isinstance(found, msgspec.inspect.IntType)


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

"""Documents to pushes: what is read is what was written, and nothing but a Problem comes out of what cannot be."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.push import Push
from zim.web.problems import KINDS, Problem
from zim.web.push import BATCH_LINE, PUSH_REQUEST, make_push

NAME = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
NUMBER = st.integers(0, (1 << 63) - 1)
SESSION_KEY = st.builds("{}_{}".format, NAME, st.integers(1, 10**18))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
TO = st.fixed_dictionaries(
    {},
    optional={
        "users": st.lists(NAME | NUMBER, max_size=5),
        "rooms": st.lists(NAME.filter(lambda name: name != "*") | NUMBER, max_size=5),
        "keys": st.lists(SESSION_KEY, max_size=5),
        "everybody": st.booleans(),
    },
).filter(lambda to: any(to.values()))
LINE = st.fixed_dictionaries(
    {"to": TO},
    optional={
        "op": st.just(5) | st.integers(100, (1 << 31) - 1).filter(lambda op: op not in (254, 255)),
        "ttl_s": st.floats(0, 1e7, exclude_min=True),
        "id": NAME,
    },
)
FIELDS = ["to", "users", "rooms", "keys", "everybody", "body", "base64", "op", "ttl_s", "id", "wait_s"]
NEARLY = st.recursive(
    st.sampled_from([None, True, 0, -1, 5, 7.0, 1e300, 1 << 70, "", "7", "7_1", "*", "\0", "AA=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=15,
)
BROKEN = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b":", b",", b'"', b'"to"', b'"body"', b"\\u0074", b"\\ud800", b"1", b"\xff"]
    )
    | st.binary(max_size=2)
).map(b"".join)


def read(document: bytes, max_body_bytes: int = 1_000, key: str = "") -> Push:
    return make_push(PUSH_REQUEST.read(document), max_body_bytes, key)


@given(LINE, JSON, st.sampled_from([None, 1]), st.booleans())
def test_a_push_is_what_was_written(line: dict[str, Any], body: Any, indent: int | None, is_ascii: bool) -> None:
    text = json.dumps(body, indent=indent, ensure_ascii=is_ascii)
    document = json.dumps(line, ensure_ascii=is_ascii)[:-1] + f', "body": {text} }}'

    push = read(document.encode(), 1 << 20)

    to = line["to"]
    users = [f"u:{uid}" for uid in to.get("users", [])]
    only = [key for key in to.get("keys", []) if "u:" + key.rpartition("_")[0] not in users]
    streams = [*users, *("u:" + key.rpartition("_")[0] for key in only), *(f"r:{room}" for room in to.get("rooms", []))]
    assert list(push.streams) == list(dict.fromkeys([*streams, *(["*"] if to.get("everybody") else [])]))
    assert push.only == tuple(dict.fromkeys(only))
    assert push.body == text.encode()
    assert (push.op, push.ttl_s, push.key) == (line.get("op", 5), line.get("ttl_s", 0.0), line.get("id", ""))


@given(st.binary(max_size=200))
def test_any_bytes_in_base64(body: bytes) -> None:
    document = {"to": {"everybody": True}, "base64": base64.b64encode(body).decode()}
    assert read(json.dumps(document).encode()).body == body


@given(NEARLY.map(json.dumps).map(str.encode) | BROKEN)
def test_what_cannot_be_is_a_problem(document: bytes) -> None:
    for reader in (PUSH_REQUEST, BATCH_LINE):
        try:
            push = make_push(reader.read(document), 1_000)
        except Problem as problem:
            said = json.loads(problem.encode(line=7))
            assert said["type"] in {kind.type for kind in KINDS}
            assert said["status"] in (400, 413)
        else:
            assert push.streams
            assert len(set(push.streams)) == len(push.streams)
            json.loads(document)


@given(BROKEN)
def test_only_json_is_read(text: bytes) -> None:
    document = b'{"to":{"everybody":true},"body":%s}' % text
    with contextlib.suppress(Problem):
        body = read(document).body
        assert json.loads(document) == {"to": {"everybody": True}, "body": json.loads(body)}


@given(st.dictionaries(st.sampled_from(FIELDS), st.integers(), min_size=1), st.data())
def test_a_field_is_there_once(fields: dict[str, int], data: st.DataObject) -> None:
    twice = data.draw(st.sampled_from(sorted(fields)))
    spelled = data.draw(st.sampled_from([twice, f"\\u{ord(twice[0]):04x}{twice[1:]}"]))
    body = ",".join(f'"{name}":{value}' for name, value in fields.items())

    # in the body it may be as often as it likes
    assert read(f'{{"to":{{"everybody":true}},"body":{{{body},"{spelled}":0}}}}'.encode()).op == 5
    with pytest.raises(Problem):
        read(f'{{{body},"{spelled}":0}}'.encode())


@given(NAME, st.text("abc", max_size=2))
def test_header_and_field(field: str, header: str) -> None:
    document = json.dumps({"to": {"everybody": True}, "body": 1, "id": field}).encode()
    if header in ("", field):
        assert read(document, key=header).key == field
    else:
        with pytest.raises(Problem, match="differ"):
            read(document, key=header)

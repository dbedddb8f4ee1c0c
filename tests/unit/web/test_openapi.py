"""The OpenAPI document is true: schemathesis makes requests of it, right and wrong ones, and checks the answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.unit.web.support import MAX_BODY_BYTES as LIMIT
from tests.unit.web.support import ROUTERS, Recorder, ask, receipt, serving
from zim.fabric.push import Status
from zim.fabric.tally import Tally
from zim.web import openapi
from zim.web.api import ROUTES
from zim.web.app import create_app
from zim.web.problems import KINDS
from zim.web.server import HttpServer

MAX_BODY_BYTES = 64_000
NDJSON = "application/x-ndjson"
DOCUMENT = openapi.document(ROUTES, MAX_BODY_BYTES)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
ASKING = [(p, m) for p, m in OPERATIONS if {"parameters", "requestBody"} & DOCUMENT["paths"][p][m].keys()]


@schemathesis.serializer(NDJSON)
def write_lines(_: Any, value: Any) -> bytes:
    return b"\n".join(json.dumps(line).encode() for line in (value if isinstance(value, list) else [value]))


@schemathesis.deserializer(NDJSON)
def read_lines(_: object, response: schemathesis.Response) -> list[Any]:
    return lines_of(response)


def lines_of(response: schemathesis.Response) -> list[Any]:
    return [json.loads(line) for line in response.content.splitlines()]


def make_consistent(case: Any) -> None:
    """What no schema can say: 7.0 is no user's number, though it is an integer to JSON Schema; no two keys."""
    if isinstance(case.body, dict) and isinstance(case.body.get("user"), float):
        case.body["user"] = int(case.body["user"])
    if case.method == "DELETE":  # one of two parameters
        query = case.query
        if query.get("user"):
            query.pop("address", None)
        else:
            query.pop("device", None)
            query["address"] = query.get("address") or "203.0.113.7"
        return
    for line in case.body if isinstance(case.body, list) else [case.body] if isinstance(case.body, dict) else []:
        if "to" not in line:
            continue
        for names in (line["to"].get("users", []), line["to"].get("rooms", [])):
            names[:] = [int(name) if isinstance(name, float) else name for name in names]
        if "op" in line:
            line["op"] = int(line["op"])
        if "id" in line and case.headers:
            case.headers.pop("Idempotency-Key", None)


def has_null(body: Any) -> bool:
    """null is absence, and the document does not say so: it would have to say it of every field."""
    return isinstance(body, dict) and any(value is None or has_null(value) for value in body.values())


@pytest.fixture(scope="module")
def fabric() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def url(fabric: Recorder) -> Iterator[str]:
    with serving(fabric, max_body_bytes=MAX_BODY_BYTES) as server:
        assert isinstance(server.address, tuple)
        yield f"http://127.0.0.1:{server.address[1]}"


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_right_requests(path: str, method: str, fabric: Recorder, url: str) -> None:
    @settings(EXAMPLES)
    @given(case=SCHEMA[path][method].as_strategy())
    def check(case: Any) -> None:
        fabric.ids.clear()
        make_consistent(case)
        if "id" in (case.path_parameters or {}):  # quoted
            push_id = unquote(case.path_parameters["id"])
            fabric.receipts[push_id] = receipt(push_id, Tally())
        answer = case.call_and_validate(base_url=url)
        assert answer.status_code == 200
        if path == "/api/push/batch":
            assert {line["status"] for line in lines_of(answer)} <= {"accepted", 422}  # one key in two lines

    check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "method"),
    [(p, m) for p, m in OPERATIONS if DOCUMENT["paths"][p][m].keys() & {"parameters", "requestBody"}],
)
def test_wrong_requests(path: str, method: str, url: str) -> None:
    is_batch = path == "/api/push/batch"

    @settings(EXAMPLES)
    @given(case=SCHEMA[path][method].as_strategy(GenerationMode.NEGATIVE))
    def check(case: Any) -> None:
        is_lenient = is_batch or has_null(case.body)
        answer = case.call_and_validate(base_url=url, excluded_checks=[negative_data_rejection] if is_lenient else [])
        if (
            is_batch
            and answer.status_code == 200
            and not any(map(has_null, case.body if isinstance(case.body, list) else [case.body]))
        ):
            assert any(line["status"] != "accepted" for line in lines_of(answer))

    check()


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["unavailable", "unknown", "conflict"])
@pytest.mark.parametrize("path", ["/api/push", "/api/push/batch"])
def test_failures(path: str, fate: Status, fabric: Recorder, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "fates", {ROUTERS[0]: fate})

    @settings(EXAMPLES)
    @given(case=SCHEMA[path]["post"].as_strategy())
    def check(case: Any) -> None:
        make_consistent(case)
        answer = case.call(base_url=url)
        case.validate_response(answer, excluded_checks=[not_a_server_error, positive_data_acceptance])

    check()


@pytest.mark.parametrize(
    "path",
    [
        *("/api/streams/{stream}", "/api/users/{uid}", "/api/users/{uid}/unread", "/api/rooms/{room}", "/api/rooms"),
        "/api/pushes/{id}",
    ],
)
def test_silent_routers(path: str, fabric: Recorder, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "is_away", True)
    monkeypatch.setattr(fabric, "silent", ["router-1"])
    monkeypatch.setattr(fabric, "receipts", {})

    @settings(EXAMPLES)
    @given(case=SCHEMA[path]["get"].as_strategy())
    def check(case: Any) -> None:
        answer = case.call(base_url=url)
        case.validate_response(answer, excluded_checks=[not_a_server_error])
        assert answer.status_code == 503

    check()


def test_it_is_served(server: HttpServer) -> None:
    answer = ask(server, "GET", "/api/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json == json.loads(json.dumps(openapi.document(ROUTES, LIMIT)))


def test_it_has_every_path(fabric: Recorder) -> None:
    rules = {
        (rule.rule, method.lower())
        for rule in create_app(fabric, 1).url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
        if rule.rule.startswith("/api/")
    }

    assert {(re.sub(r"\{(\w+)\}", r"<\1>", path), method) for path, method in OPERATIONS} == rules


def test_every_kind_of_problem_has_its_place() -> None:
    texts = [
        answer["description"]
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for answer in operation["responses"].values()
    ]

    for kind in KINDS:
        assert any(f"({kind.type})" in text for text in texts), kind

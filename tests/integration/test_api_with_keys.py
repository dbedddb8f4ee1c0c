"""The HTTP API of a real fabric with API keys: schemathesis asks everything that its own document describes.

`tests/unit/web/test_openapi.py` holds the document against the server alone; here routers answer, and keys count.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.harness import Fabric, running
from tests.unit.web.test_openapi import NDJSON, lines_of, make_consistent
from zim.web import openapi
from zim.web.api import ROUTES

ALL, LOBBY, NONE, UNKNOWN = (f"zim_{who}{'Qx7' * 10}" for who in ("all", "lobby", "none", "unknown"))
DOCUMENT = openapi.document(ROUTES, 65_536)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
OPEN = {"/api/openapi.json"}  # it says nothing of this fabric, and needs no key
GUARDED = [(path, method) for path, method in OPERATIONS if path not in OPEN]
SOME = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SCOPES = '["push", "read", "count", "kick", "ban", "operate", "metrics"]'


def _key(name: str, key: str, scopes: str) -> str:
    return f'[[api_key]]\nid = "{name}"\nsha256 = "{sha256(key.encode()).hexdigest()}"\nscopes = {scopes}\n'


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    keys = (_key("all", ALL, SCOPES), _key("lobby", LOBBY, '{ push = ["r:lobby"] }'), _key("none", NONE, '["metrics"]'))
    with running(routers=2, has_admin=True, more="\n".join(keys)) as f:
        yield f
        assert "Traceback" not in f.log


@pytest.fixture(scope="module")
def url(fabric: Fabric) -> str:
    return f"http://{fabric.http['logic-1']}"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def documented(path: str, method: str) -> set[int]:
    return set(map(int, DOCUMENT["paths"][path][method]["responses"]))


def check_problem(answer: Any, status: int) -> None:
    """An answer that refuses says so in a problem document (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == ["application/problem+json"], answer.headers
    document = answer.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:zim:problem:")
    assert ("www-authenticate" in answer.headers) == (status == 401)
    for key in (ALL, LOBBY, NONE, UNKNOWN):
        assert key not in answer.text


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_right_requests_of_who_may_do_all(path: str, method: str, url: str) -> None:
    @settings(SOME)
    @given(case=SCHEMA[path][method].as_strategy())
    def check(case: Any) -> None:
        make_consistent(case)
        if isinstance(case.body, dict) and "wait_s" in case.body:
            case.body["wait_s"] = 0
        answer = case.call(base_url=url, headers=bearer(ALL))
        case.validate_response(answer, excluded_checks=[not_a_server_error, positive_data_acceptance])
        assert answer.status_code in documented(path, method)
        assert answer.status_code in (200, 404, 409, 422), answer.text

    check()


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_wrong_requests_of_who_may_do_all(path: str, method: str, url: str) -> None:
    if not DOCUMENT["paths"][path][method].keys() & {"parameters", "requestBody"}:
        return

    @settings(SOME)
    @given(case=SCHEMA[path][method].as_strategy(GenerationMode.NEGATIVE))
    def check(case: Any) -> None:
        answer = case.call(base_url=url, headers=bearer(ALL))
        case.validate_response(answer, excluded_checks=[negative_data_rejection])
        assert 200 <= answer.status_code < 500

    check()


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize(("path", "method"), GUARDED)
def test_nobody_gets_anything(path: str, method: str, mode: GenerationMode, url: str) -> None:
    """Without a key, and with one that is not known, whatever is asked."""
    if mode is GenerationMode.NEGATIVE and not DOCUMENT["paths"][path][method].keys() & {"parameters", "requestBody"}:
        return

    @settings(SOME)
    @given(case=SCHEMA[path][method].as_strategy(mode))
    def check(case: Any) -> None:
        for headers in ({}, bearer(UNKNOWN), {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer "}):
            answer = case.call(base_url=url, headers=headers)
            if answer.status_code in (400, 404, 405, 413, 415):  # no such path, or no request that could be read
                assert mode is GenerationMode.NEGATIVE, answer.text
            else:
                check_problem(answer, 401)

    check()


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), GUARDED)
def test_who_has_a_key_for_something_else_is_told_so(path: str, method: str, url: str) -> None:
    @settings(SOME)
    @given(case=SCHEMA[path][method].as_strategy())
    def check(case: Any) -> None:
        make_consistent(case)
        if NDJSON in case.operation.definition.raw.get("requestBody", {}).get("content", {}):
            answer = case.call(base_url=url, headers=bearer(NONE))
            if answer.status_code == 200:
                assert {line["status"] for line in lines_of(answer)} <= {403, 422}
                return
        else:
            answer = case.call(base_url=url, headers=bearer(NONE))
        check_problem(answer, 403)

    check()


def test_a_key_for_a_room_pushes_to_that_room_alone(fabric: Fabric) -> None:
    for to, status in (({"rooms": ["lobby"]}, 200), ({"rooms": ["hall"]}, 403), ({"users": ["lobby"]}, 403)):
        headers = bearer(LOBBY) | {"Content-Type": "application/json"}
        document = f'{{"to":{str(to).replace(chr(39), chr(34))},"body":1}}'
        assert fabric.request("POST", "/api/push", document, headers=headers)[0] == status


GOIM = (
    "/1/push?uid=1",
    "/1/push/room?rid=1",
    "/1/push/all",
    "/1/pushs",
    "/1/server/del?server=9",
    "/1/count?type=room",
)


@pytest.mark.parametrize("path", GOIM)
def test_goims_api(fabric: Fabric, path: str) -> None:
    method = "GET" if "count" in path else "POST"
    body = b'{"u":[1],"m":1}' if "pushs" in path else b"1"
    for headers, status in (({}, 401), (bearer(UNKNOWN), 401), (bearer(NONE), 403), (bearer(ALL), 200)):
        found, answer = fabric.request(method, path, body, headers=headers)
        assert found == status, answer
        assert (answer["ret"] == 1) == (status == 200)


def test_what_needs_no_key(fabric: Fabric) -> None:
    """Whether it lives, and what its API looks like: nothing that is of this fabric."""
    for path in ("/api/openapi.json", "/healthz", "/readyz"):
        assert fabric.request("GET", path)[0] == 200
        assert fabric.request("GET", path, headers=bearer(UNKNOWN))[0] == 200

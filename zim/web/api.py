"""zim's own HTTP API, under `/api/`: pushes one by one and in batches, streams, receipts.

Each view reads what was asked for, calls the fabric, and answers; reading and answering are in modules of their own
(`push`, `queries`, `batch`, `documents`), as is what is said where something is wrong (`problems`). A view raises a
Problem, or zim.errors.Unavailable; the app answers with it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from flask import Flask, Response, request

from zim.errors import Unavailable
from zim.fabric.streams import user_stream
from zim.web import openapi
from zim.web.batch import MAX_BATCH_BYTES, NDJSON, answer_batch
from zim.web.documents import accepted, history_of, ledger_of, not_accepted, receipt_of, unread_of
from zim.web.fabric import Fabric
from zim.web.problems import IDEMPOTENCY_KEY, MEDIA_TYPE, NO_PUSH, PROBLEM_JSON, UNAVAILABLE, Problem
from zim.web.push import MAX_RECIPIENTS, PUSH_REQUEST, make_push, parse_header
from zim.web.queries import HISTORY_QUERY, NO_QUERY, RECEIPT_QUERY, name_in_path, stream_in_path
from zim.web.response import respond

JSON = "application/json"
RETRY_AFTER_S = 1  # a router that does not answer is back, or replaced, within seconds

PUSH, BATCH = "/api/push", "/api/push/batch"
LEDGER = "/api/ledger"
STREAMS, USERS, PUSHES = "/api/streams/", "/api/users/", "/api/pushes/"
UNREAD = "/unread"

_RECIPIENTS_BYTES = 20 * MAX_RECIPIENTS


def max_push_bytes(max_body_bytes: int) -> int:
    """How many bytes a request to push, or a line of a batch, may have: a body in base64, and whom it is for."""
    return max_body_bytes * 4 // 3 + _RECIPIENTS_BYTES


def max_request_bytes(max_body_bytes: int) -> dict[str, int]:
    """How many bytes a request's body may have, by its path."""
    one = max_push_bytes(max_body_bytes)
    return {PUSH: one, BATCH: max(one, MAX_BATCH_BYTES)}


def add_to(app: Flask, fabric: Fabric, max_body_bytes: int) -> None:
    """Add the endpoints to the app."""
    api = _Api(fabric, max_body_bytes)
    endpoints: list[tuple[str, str, Callable[..., Response]]] = [
        ("POST", PUSH, api.push),
        ("POST", BATCH, api.batch),
        ("GET", f"{STREAMS}<path:_>", api.history),
        ("GET", f"{USERS}<path:_>{UNREAD}", api.unread),
        ("GET", f"{PUSHES}<path:_>", api.receipt),
        ("GET", LEDGER, api.ledger),
        ("GET", "/api/openapi.json", api.openapi),
    ]
    for method, path, view in endpoints:
        app.add_url_rule(path, path, view, methods=[method], provide_automatic_options=False)


def problem_answer(problem: Problem) -> Response:
    """A problem as an answer."""
    return respond(problem.encode(), PROBLEM_JSON, problem.status, problem.headers)


def unavailable(error: Unavailable) -> Problem:
    """A router that does not answer as a problem."""
    return Problem(UNAVAILABLE, str(error), retry_after_s=RETRY_AFTER_S, silent=[error.who])


class _Api:
    def __init__(self, fabric: Fabric, max_body_bytes: int) -> None:
        self._fabric, self._max_body_bytes = fabric, max_body_bytes
        self._openapi = msgspec.json.encode(openapi.document(max_body_bytes))

    def push(self) -> Response:
        """`POST /api/push`: one body, to any mix of recipients."""
        NO_QUERY.read_query(_query())
        _require_type(JSON)
        key = parse_header(_idempotency_key())
        document = PUSH_REQUEST.read(request.get_data(cache=False))
        push = make_push(document, self._max_body_bytes, key)
        published = self._fabric.publish(push)
        if published.status != "ok":
            raise not_accepted(published, push.key != "")
        if isinstance(document.wait_s, msgspec.UnsetType):
            return _ok(accepted(published))
        return _ok(accepted(published, self._fabric.receipt(published.push_id, document.wait_s)))

    def batch(self) -> Response:
        """`POST /api/push/batch`: a push a line, a verdict a line."""
        NO_QUERY.read_query(_query())
        _require_type(NDJSON)
        if _idempotency_key() is not None:
            why = "Idempotency-Key: a batch is many pushes, and each of its lines has a key of its own, the field id"
            raise Problem(IDEMPOTENCY_KEY, why, key="Idempotency-Key", expected="no such header; id in the lines")
        max_body_bytes = self._max_body_bytes
        lines = request.environ["wsgi.input"]
        return respond(answer_batch(lines, self._fabric, max_body_bytes, max_push_bytes(max_body_bytes)), NDJSON)

    def history(self, _: str) -> Response:
        """`GET /api/streams/u%3A7?after=0&limit=100`: a piece of a stream."""
        stream, query = stream_in_path(_path(), STREAMS), HISTORY_QUERY.read_query(_query())
        return _ok(history_of(self._fabric.history(stream, query.after, query.limit)))

    def unread(self, _: str) -> Response:
        """`GET /api/users/7/unread`: what a user has not acknowledged."""
        NO_QUERY.read_query(_query())
        uid = name_in_path(_path(), USERS, UNREAD)
        return _ok(unread_of(user_stream(uid), self._fabric.unread(uid)))

    def receipt(self, _: str) -> Response:
        """`GET /api/pushes/<id>?wait_s=5`: what became of a push."""
        push_id, query = name_in_path(_path(), PUSHES), RECEIPT_QUERY.read_query(_query())
        receipt = self._fabric.receipt(push_id, query.wait_s)
        if receipt.is_known:
            return _ok(receipt_of(receipt))
        if not receipt.silent:
            raise Problem(NO_PUSH, "there was no such push, or it is forgotten", id=push_id)
        silent = list(receipt.silent)
        why = f"no router that answered knows this push; {', '.join(silent)} did not answer"
        raise Problem(UNAVAILABLE, why, retry_after_s=RETRY_AFTER_S, id=push_id, silent=silent)

    def ledger(self) -> Response:
        """`GET /api/ledger`: what became of all pushes."""
        NO_QUERY.read_query(_query())
        return _ok(ledger_of(self._fabric.totals()))

    def openapi(self) -> Response:
        """`GET /api/openapi.json`: this API, described for programs."""
        NO_QUERY.read_query(_query())
        return respond(self._openapi, JSON)


def _ok(document: msgspec.Struct) -> Response:
    return respond(msgspec.json.encode(document), JSON)


def _path() -> str:
    """The path, its bytes read as Latin-1. Flask's would have other characters where they are not UTF-8."""
    return str(request.environ["PATH_INFO"])


def _query() -> str:
    return str(request.environ.get("QUERY_STRING", ""))


def _idempotency_key() -> str | None:
    header: str | None = request.environ.get("HTTP_IDEMPOTENCY_KEY")
    return header


def _require_type(expected: str) -> None:
    """Refuse a body of another type than a path takes."""
    if request.mimetype != expected:
        why = f"the body's type is {request.mimetype or 'not given'}, in the header Content-Type"
        raise Problem(MEDIA_TYPE, why, key="Content-Type", expected=expected)
    coding = request.environ.get("HTTP_CONTENT_ENCODING", "identity")
    if coding.lower() != "identity":
        raise Problem(MEDIA_TYPE, "the body is compressed", key="Content-Encoding", expected="no such header")

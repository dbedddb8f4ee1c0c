"""zim's own HTTP API, under `/api/`: pushes one by one and in batches, streams, receipts, who is there.

First stop of a push. In: a request of a backend. Out: a Push to the fabric, and back what became of it, as JSON.

ROUTES is the API: Flask's rules and the OpenAPI document are made of it. The summaries there are the first lines of
the docstrings of views and questions. A question of `zim.fabric.questions` needs a row and no view. Where something is
wrong a view raises a Problem, or an error of the fabric's port; the app answers with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import cast

import msgspec
from flask import Flask, Response, request

from zim.errors import Unavailable, Unknown
from zim.fabric.answers import Receipt, RoomSizes
from zim.fabric.limits import RECIPIENTS
from zim.fabric.port import Fabric
from zim.fabric.questions import LargestRooms, RoomCount, UnreadCount, UserSessions, WholeLedger
from zim.web import control
from zim.web.batch import MAX_BATCH_BYTES, answer_batch
from zim.web.documents import Accepted, History, accepted, history_of, not_accepted
from zim.web.keys import Keys
from zim.web.openapi import document
from zim.web.problems import CONFLICT, IDEMPOTENCY_KEY, LIMITED, NO_PUSH, PROBLEM_JSON, UNAVAILABLE, UNKNOWN, Problem
from zim.web.push import PUSH_REQUEST, BatchLine, PushRequest, make_push, parse_header
from zim.web.queries import HistoryQuery, ReceiptQuery, RoomsQuery
from zim.web.response import respond
from zim.web.routes import JSON, NDJSON, ApiRequest, Route, add_route, question, respond_json
from zim.web.wsgi import IS_GONE

RETRY_AFTER_S = 1  # a router that does not answer is back, or replaced, within seconds

PUSH, BATCH = "/api/push", "/api/push/batch"

_PUSH_ID = re.compile(r"[0-9a-f]{32}")
_RECIPIENTS_BYTES = 20 * RECIPIENTS


def push(asked: ApiRequest) -> Response:
    """Push one body to users, rooms, sessions, everybody, any mix."""
    key = parse_header(asked.key)
    line = PUSH_REQUEST.read(request.get_data(cache=False))
    wanted = make_push(line, asked.max_body_bytes, key)
    published = asked.fabric.publish(wanted, asked.who)
    if published.status != "ok":
        raise not_accepted(published, wanted.key != "")
    if isinstance(line.wait_s, msgspec.UnsetType):
        return respond_json(accepted(published))
    return respond_json(
        accepted(published, asked.fabric.receipt(published.push_id, asked.who, line.wait_s, _is_gone()))
    )


def batch(asked: ApiRequest) -> Response:
    """Push many: a push a line, its verdict a line, in the same order."""
    if asked.key is not None:
        why = "Idempotency-Key: a batch is many pushes, and each of its lines has a key of its own, the field id"
        raise Problem(IDEMPOTENCY_KEY, why, key="Idempotency-Key", expected="no such header; id in the lines")
    lines, max_body_bytes = request.environ["wsgi.input"], asked.max_body_bytes
    return respond(answer_batch(lines, asked.fabric, asked.who, max_body_bytes, max_push_bytes(max_body_bytes)), NDJSON)


def _is_gone() -> Callable[[], bool]:
    """See IS_GONE; another server than ours does not tell."""
    return cast(Callable[[], bool], request.environ.get(IS_GONE, lambda: False))


def history(asked: ApiRequest) -> Response:
    """A piece of a stream: u:<uid>, r:<room>, *."""
    return respond_json(history_of(asked.fabric.history(asked.name, asked.query.after, asked.query.limit, asked.who)))


def receipt(asked: ApiRequest) -> Response:
    """What became of a push."""
    found = asked.fabric.receipt(asked.name, asked.who, asked.query.wait_s, _is_gone())
    if found.is_known:
        return respond_json(found)
    if not found.silent and not _PUSH_ID.fullmatch(asked.name):
        raise Problem(NO_PUSH, "this is no push id", id=asked.name, expected="the id in the answer to the push")
    if not found.silent:
        raise Problem(NO_PUSH, "there was no such push, or it is forgotten", id=asked.name)
    why = f"no router that answered knows this push; {', '.join(found.silent)} did not answer"
    raise Problem(UNAVAILABLE, why, retry_after_s=RETRY_AFTER_S, id=asked.name, silent=found.silent)


def rooms(asked: ApiRequest) -> Response:
    """The largest rooms, and how many sessions are in each."""
    return respond_json(asked.fabric.ask(LargestRooms(asked.query.limit), asked.who))


def openapi(asked: ApiRequest) -> Response:
    """This document."""
    return respond(encode_document(asked.max_body_bytes), JSON)


_PUSHED = (UNAVAILABLE, CONFLICT, UNKNOWN, LIMITED)
_RECEIPT = (UNAVAILABLE, NO_PUSH)

ROUTES = (
    Route("POST", PUSH, "push", push, Accepted, body=PushRequest, takes_key=True, problems=_PUSHED, scope="push"),
    Route("POST", BATCH, "pushBatch", batch, Accepted, body=BatchLine, media_type=NDJSON, scope="push"),
    Route("GET", "/api/streams/{stream}", "history", history, History, query=HistoryQuery, scope="read"),
    Route("GET", "/api/pushes/{id}", "receipt", receipt, Receipt, query=ReceiptQuery, problems=_RECEIPT, scope="push"),
    question("/api/users/{uid}", "user", UserSessions),
    question("/api/users/{uid}/unread", "unread", UnreadCount),
    question("/api/rooms/{room}", "room", RoomCount),
    Route("GET", "/api/rooms", "rooms", rooms, RoomSizes, query=RoomsQuery, scope="count"),
    *control.ROUTES,
    question("/api/ledger", "ledger", WholeLedger),
    Route("GET", "/api/openapi.json", "openapi", openapi, dict, problems=()),
)


def max_push_bytes(max_body_bytes: int) -> int:
    """How many bytes a request to push, or a line of a batch, may have: a body in base64, and whom it is for."""
    return max_body_bytes * 4 // 3 + _RECIPIENTS_BYTES


def max_request_bytes(max_body_bytes: int) -> dict[str, int]:
    """How many bytes a request's body may have, by its path."""
    one = max_push_bytes(max_body_bytes)
    return {PUSH: one, BATCH: max(one, MAX_BATCH_BYTES)}


def add_to(app: Flask, fabric: Fabric, keys: Keys, max_body_bytes: int) -> None:
    """Add the routes to the app."""
    for route in ROUTES:
        add_route(app, route, fabric, keys, max_body_bytes)


@lru_cache(maxsize=1)
def encode_document(max_body_bytes: int) -> bytes:
    """The OpenAPI document as JSON."""
    return msgspec.json.encode(document(ROUTES, max_body_bytes)) + b"\n"


def problem_answer(problem: Problem) -> Response:
    """A problem as an answer."""
    return respond(problem.encode() + b"\n", PROBLEM_JSON, problem.status, problem.headers)


def unavailable(error: Unavailable | Unknown) -> Response:
    """A router that does not answer as an answer."""
    kind, retry_after_s = (UNKNOWN, None) if isinstance(error, Unknown) else (UNAVAILABLE, RETRY_AFTER_S)
    return problem_answer(Problem(kind, str(error), retry_after_s=retry_after_s, silent=[error.who]))

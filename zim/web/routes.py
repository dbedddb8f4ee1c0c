"""What a route of the native API is, as data: Flask's rules and the OpenAPI document are made of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
from flask import Flask, Response, request

from zim.fabric.port import Fabric
from zim.fabric.principals import NOBODY, Principal, Scope
from zim.fabric.questions import Question
from zim.web.keys import Keys
from zim.web.problems import MEDIA_TYPE, UNAVAILABLE, Kind, Problem
from zim.web.queries import NoQuery, parse_name
from zim.web.reading import Reader
from zim.web.response import respond

JSON, NDJSON = "application/json", "application/x-ndjson"


@dataclass(frozen=True)
class ApiRequest:
    """A request that was understood so far.

    Attributes:
        fabric: what to call.
        who: sends it.
        max_body_bytes: of one push.
        name: what stands in the path.
        query: what stands behind the question mark.
        key: the header Idempotency-Key.
    """

    fabric: Fabric
    who: Principal
    max_body_bytes: int
    name: str
    query: Any
    key: str | None


@dataclass(frozen=True)
class Route:
    """One route.

    Attributes:
        method: GET, POST or DELETE.
        path: as OpenAPI writes it. A name in it is one of zim.web.queries.IN_PATH.
        operation: its operationId.
        view: answers a request, or raises a Problem or zim.errors.Unavailable. Its docstring is the summary.
        answer: the struct that is answered; for NDJSON, in each line.
        query: what may stand behind the question mark.
        body: the struct that is taken; for NDJSON, in each line.
        media_type: of what is taken and answered.
        takes_key: the header Idempotency-Key means something.
        problems: what it may be answered with beside what any request may.
        scope: that whoever asks must have; "" for none, not even a key.
    """

    method: str
    path: str
    operation: str
    view: Callable[[ApiRequest], Response]
    answer: Any
    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    media_type: str = JSON
    takes_key: bool = False
    problems: tuple[Kind, ...] = (UNAVAILABLE,)
    scope: Scope | Literal[""] = ""

    @property
    def summary(self) -> str:
        """For people."""
        return (self.view.__doc__ or "").partition("\n")[0].rstrip(".")


A = TypeVar("A")


def question(path: str, operation: str, kind: type[Question[A]]) -> Route:
    """A route that answers a question, with its answer as it is.

    Args:
        path, operation: see Route.
        kind: of question; it is made with the name in the path, if there is one.
    """
    make: Callable[..., Question[A]] = kind

    def view(asked: ApiRequest) -> Response:
        return respond_json(asked.fabric.ask(make(asked.name) if asked.name else make(), asked.who))

    view.__doc__ = kind.__doc__
    problems = () if kind.names_silent else (UNAVAILABLE,)
    return Route("GET", path, operation, view, kind.answer_type(), problems=problems, scope=kind.scope)


def add_route(app: Flask, route: Route, fabric: Fabric, keys: Keys, max_body_bytes: int) -> None:
    """Add it to the app."""
    reader = Reader(route.query)

    def view(**names: str) -> Response:
        who = keys.principal(request.environ) if route.scope else NOBODY
        query = reader.read_query(str(request.environ.get("QUERY_STRING", "")))
        if route.body is not None:
            _require_type(route.media_type)
        name = next((parse_name(kind, segment) for kind, segment in names.items()), "")
        key = request.environ.get("HTTP_IDEMPOTENCY_KEY")
        return route.view(ApiRequest(fabric, who, max_body_bytes, name, query, key))

    rule = re.sub(r"\{(\w+)\}", r"<\1>", route.path)
    app.add_url_rule(rule, route.operation, view, methods=[route.method], provide_automatic_options=False)


def respond_json(document: Any) -> Response:
    """A struct as an answer, with the end of a line for those who read it in a terminal."""
    return respond(msgspec.json.encode(document) + b"\n", JSON)


def _require_type(expected: str) -> None:
    """Refuse a body of another type than a path takes."""
    if request.mimetype != expected:
        why = f"the body's type is {request.mimetype or 'not given'}, in the header Content-Type"
        raise Problem(MEDIA_TYPE, why, key="Content-Type", expected=expected)
    coding = request.environ.get("HTTP_CONTENT_ENCODING", "identity")
    if coding.lower() != "identity":
        raise Problem(MEDIA_TYPE, "the body is compressed", key="Content-Encoding", expected="no such header")

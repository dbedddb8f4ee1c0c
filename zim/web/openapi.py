"""The native API as an OpenAPI 3.1 document: the paths are data here, the schemas are those of the structs themselves.

Source: OpenAPI 3.1.1; of 3.2 the convention that the schema of NDJSON is an array, of its lines.
"""

from __future__ import annotations

from typing import Any

import msgspec

from zim import __version__
from zim.web import documents, problems
from zim.web.names import HEADER, HEADER_PATTERN, MAX_NAME_BYTES, NAME_PATTERN
from zim.web.problems import PROBLEM_JSON, Kind
from zim.web.push import BatchLine, PushRequest
from zim.web.queries import HistoryQuery, ReceiptQuery

Schema = dict[str, Any]

_REF = "#/components/schemas/{name}"
_JSON, _NDJSON = "application/json", "application/x-ndjson"
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES, "pattern": NAME_PATTERN}
_STREAM_PATTERN = (
    r"^(\*|u:[^\u0000-\u001f\u007f-\u009f]+|r:([^\u0000-\u001f\u007f-\u009f*]|[^\u0000-\u001f\u007f-\u009f]{2,}))$"
)
_STREAM: Schema = {"type": "string", "maxLength": MAX_NAME_BYTES, "pattern": _STREAM_PATTERN}
_QUERIES = (HistoryQuery, ReceiptQuery)
_ANSWERS = (
    documents.Accepted,
    documents.History,
    documents.Ledger,
    documents.Part,
    documents.Receipt,
    documents.Unread,
)

# What any request may be answered with; and one with a body; and one that asks a router.
_ANY = (problems.INVALID_VALUE, problems.UNKNOWN_FIELD, problems.BROKEN_REQUEST, problems.METHOD, problems.DEFECT)
_WITH_BODY = (problems.MALFORMED_JSON, problems.IDEMPOTENCY_KEY, problems.TOO_LARGE, problems.MEDIA_TYPE)
_ASKING = (problems.UNAVAILABLE,)


def document(max_body_bytes: int) -> Schema:
    """The document.

    Args:
        max_body_bytes: of one push.
    """
    schemas = _schemas()
    queries = {name: _parameters(schemas.pop(name)) for name in ("HistoryQuery", "ReceiptQuery")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "zim",
            "version": __version__,
            "description": f"Pushes messages to people's devices. A body may have {max_body_bytes} bytes.",
        },
        "paths": _paths(queries),
        "components": {"schemas": schemas},
    }


def _paths(queries: dict[str, list[Schema]]) -> Schema:
    push: Schema = {
        "operationId": "push",
        "summary": "Push one body to users, rooms, sessions, everybody, any mix",
        "parameters": [_idempotency_key()],
        "requestBody": _content(_JSON, _ref("PushRequest"), required=True),
        "responses": _responses(
            _JSON, _ref("Accepted"), *_ANY, *_WITH_BODY, *_ASKING, problems.CONFLICT, problems.UNKNOWN
        ),
    }
    push["responses"]["200"]["links"] = {
        "receipt": {"operationId": "receipt", "parameters": {"id": "$response.body#/id"}}
    }
    batch = {
        "operationId": "pushBatch",
        "summary": "Push many: a push a line, its verdict a line, in the same order",
        "requestBody": _content(_NDJSON, {"type": "array", "items": _ref("BatchLine")}, required=True),
        "responses": _responses(
            _NDJSON,
            {"type": "array", "items": {"anyOf": [_ref("Accepted"), _ref("Problem")]}},
            *_ANY,
            *_WITH_BODY,
            *_ASKING,
        ),
    }
    history = {
        "operationId": "history",
        "summary": "A piece of a stream: u:<uid>, r:<room>, *",
        "parameters": [_in_path("stream", _STREAM), *queries["HistoryQuery"]],
        "responses": _responses(_JSON, _ref("History"), *_ANY, *_ASKING, problems.NOT_FOUND),
    }
    unread = {
        "operationId": "unread",
        "summary": "How many messages of a user's own stream are not acknowledged",
        "parameters": [_in_path("uid", _NAME)],
        "responses": _responses(_JSON, _ref("Unread"), *_ANY, *_ASKING, problems.NOT_FOUND),
    }
    receipt = {
        "operationId": "receipt",
        "summary": "What became of a push",
        "parameters": [_in_path("id", _NAME), *queries["ReceiptQuery"]],
        "responses": _responses(_JSON, _ref("Receipt"), *_ANY, *_ASKING, problems.NO_PUSH, problems.NOT_FOUND),
    }
    ledger = {
        "operationId": "ledger",
        "summary": "What became of all pushes, and whether every session is accounted for",
        "responses": _responses(_JSON, _ref("Ledger"), *_ANY),
    }
    openapi = {
        "operationId": "openapi",
        "summary": "This document",
        "responses": _responses(_JSON, {"type": "object"}, *_ANY),
    }
    return {
        "/api/push": {"post": push},
        "/api/push/batch": {"post": batch},
        "/api/streams/{stream}": {"get": history},
        "/api/users/{uid}/unread": {"get": unread},
        "/api/pushes/{id}": {"get": receipt},
        "/api/ledger": {"get": ledger},
        "/api/openapi.json": {"get": openapi},
    }


def _schemas() -> Schema:
    """The schemas of the structs, and what msgspec cannot know of them."""
    _, schemas = msgspec.json.schema_components((PushRequest, BatchLine, *_QUERIES, *_ANSWERS), ref_template=_REF)
    for name in ("PushRequest", "BatchLine"):
        schemas[name]["oneOf"] = [{"required": ["body"]}, {"required": ["base64"]}]
        schemas[name]["properties"]["base64"]["pattern"] = (
            "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
        )
    schemas["To"]["anyOf"] = [
        *({"required": [name], "properties": {name: {"minItems": 1}}} for name in ("users", "rooms", "keys")),
        {"required": ["everybody"], "properties": {"everybody": {"const": True}}},
    ]
    schemas["To"]["properties"]["rooms"]["items"]["not"] = {"const": "*"}
    return {**schemas, "Problem": _problem()}


def _problem() -> Schema:
    """RFC 9457, with the members of ours that it may have."""
    kinds = "; ".join(f"{kind.type} ({kind.status}): {kind.title}" for kind in problems.KINDS)
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"description": kinds, "enum": [kind.type for kind in problems.KINDS]},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "key": {"type": "string", "description": "the field, parameter or header that is wrong"},
            "expected": {"type": "string", "description": "what would be right"},
            "known": {"type": "array", "items": {"type": "string"}, "description": "fields or parameters that exist"},
            "limit": {"type": "integer", "description": "what is allowed at most"},
            "line": {"type": "integer", "description": "of the document; in a batch's answer, the batch's line"},
            "column": {"type": "integer", "description": "the byte in the line, from 1"},
            "allowed": {"type": "array", "items": {"type": "string"}, "description": "methods that exist"},
            "id": {"type": "string", "description": "names the push"},
            "parts": {"type": "array", "items": _ref("Part"), "description": "what became of it at each router"},
            "silent": {"type": "array", "items": {"type": "string"}, "description": "routers that did not answer"},
            "retry_after_s": {"type": "integer", "description": "when to try again"},
        },
    }


def _parameters(schema: Schema) -> list[Schema]:
    """A query's struct as parameters."""
    return [
        {"name": name, "in": "query", "description": field.pop("description"), "schema": field}
        for name, field in schema["properties"].items()
    ]


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": "percent-encoded", "schema": schema}


def _idempotency_key() -> Schema:
    why = f"The same key within its window is the same push. {HEADER}"
    schema = {"type": "string", "pattern": HEADER_PATTERN}
    return {"name": "Idempotency-Key", "in": "header", "description": why, "schema": schema}


def _responses(media_type: str, schema: Schema, *kinds: Kind) -> Schema:
    responses: Schema = {"200": {"description": "OK", **_content(media_type, schema)}}
    by_status: dict[int, list[Kind]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    for status, of_it in sorted(by_status.items()):
        description = "; ".join(f"{kind.title} ({kind.type})" for kind in of_it)
        responses[str(status)] = {"description": description, **_content(PROBLEM_JSON, _ref("Problem"))}
    for code, header, type_ in (("405", "Allow", "string"), ("503", "Retry-After", "integer")):
        if code in responses:
            responses[code]["headers"] = {header: {"required": True, "schema": {"type": type_}}}
    return responses


def _content(media_type: str, schema: Schema, **more: bool) -> Schema:
    return {"content": {media_type: {"schema": schema}}, **more}


def _ref(name: str) -> Schema:
    return {"$ref": _REF.format(name=name)}

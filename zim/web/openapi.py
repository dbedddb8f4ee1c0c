"""The native API as an OpenAPI 3.1 document, made of its table of routes and of the structs that these name.

Source: OpenAPI 3.1.1; of 3.2 the convention that the schema of NDJSON is an array, of its lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from zim import __version__
from zim.fabric.push import Part
from zim.web import problems
from zim.web.documents import Accepted
from zim.web.idempotency import HEADER, HEADER_PATTERN
from zim.web.problems import PROBLEM_JSON, Kind
from zim.web.queries import IN_PATH
from zim.web.routes import JSON, NDJSON, Route

Schema = dict[str, Any]

_REF = "#/components/schemas/{name}"

# What any request may be answered with; and one with a body.
_WRONG = (problems.INVALID_VALUE, problems.UNKNOWN_FIELD, problems.BROKEN_REQUEST, problems.FOREIGN, problems.METHOD)
_ANY = (*_WRONG, problems.DEFECT)
_WITH_BODY = (problems.MALFORMED_JSON, problems.IDEMPOTENCY_KEY, problems.TOO_LARGE, problems.MEDIA_TYPE)


def document(routes: Sequence[Route], max_body_bytes: int) -> Schema:
    """The document.

    Args:
        routes: of the API.
        max_body_bytes: of one push.
    """
    paths: Schema = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "zim",
            "version": __version__,
            "description": f"Pushes messages to people's devices. A body may have {max_body_bytes} bytes.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(routes), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(route: Route) -> Schema:
    names = re.findall(r"\{(\w+)\}", route.path)
    key = [_idempotency_key()] if route.takes_key else []
    answer = _ref(route.answer.__name__) if issubclass(route.answer, msgspec.Struct) else {"type": "object"}
    if route.media_type == NDJSON:
        answer = {"type": "array", "items": {"anyOf": [answer, _ref("Problem")]}}
    keyed = (problems.UNAUTHORIZED, problems.FORBIDDEN) if route.scope else ()
    kinds = [*_ANY, *keyed, *(_WITH_BODY if route.body else ()), *([problems.NOT_FOUND] if names else [])]
    operation: Schema = {
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": [*map(_in_path, names), *_parameters(route.query), *key],
        "responses": _responses(route.media_type, answer, *kinds, *route.problems),
    }
    if route.scope:
        operation["security"] = [{"key": []}, {}]
    if route.body is not None:
        line = _ref(route.body.__name__)
        taken = {"type": "array", "items": line} if route.media_type == NDJSON else line
        operation["requestBody"] = _content(route.media_type, taken, required=True)
    if route.answer is Accepted and route.media_type == JSON:
        link = {"operationId": "receipt", "parameters": {"id": "$response.body#/id"}}
        operation["responses"]["200"]["links"] = {"receipt": link}
    return {name: value for name, value in operation.items() if value}


def _schemas(routes: Sequence[Route]) -> Schema:
    """The schemas of the structs, and what msgspec cannot know of them."""
    structs = [s for route in routes for s in (route.body, route.answer) if s and issubclass(s, msgspec.Struct)]
    _, schemas = msgspec.json.schema_components([*structs, Part], ref_template=_REF)
    for name in ("PushRequest", "BatchLine"):
        schemas[name]["oneOf"] = [{"required": ["body"]}, {"required": ["base64"]}]
        schemas[name]["properties"]["base64"]["pattern"] = (
            "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
        )
    schemas["To"]["anyOf"] = [
        *({"required": [name], "properties": {name: {"minItems": 1}}} for name in ("users", "rooms", "keys")),
        {"required": ["everybody"], "properties": {"everybody": {"const": True}}},
    ]
    _one_of(schemas["KickRequest"], ["user"], ["key"], ["room"])
    _one_of(schemas["BanRequest"], ["user"], ["address"])
    for name, alone in (("KickRequest", ("key", "room")), ("BanRequest", ("address",))):
        schemas[name]["dependentSchemas"] = {other: {"properties": {"device": {"const": ""}}} for other in alone}
    in_room = {"if": {"properties": {"what": {"const": "room"}}, "required": ["what"]}, "then": {"required": ["room"]}}
    schemas["KickRequest"] |= in_room
    schemas["MoveRequest"]["anyOf"] = [
        {"required": [name], "properties": {name: {"minItems": 1}}} for name in ("join", "leave")
    ]
    schemas["To"]["properties"]["rooms"]["items"]["not"] = {"const": "*"}
    return {**schemas, "Problem": _problem()}


def _one_of(schema: Schema, *sets: Sequence[str]) -> None:
    """Exactly one of these has all of its members."""
    schema["oneOf"] = [{"required": [*names]} for names in sets]


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
            "scope": {"type": "string", "description": "that the API key does not have"},
            "stream": {"type": "string", "description": "for which it does not have it; all for everywhere"},
            "parts": {"type": "array", "items": _ref("Part"), "description": "what became of it at each router"},
            "silent": {"type": "array", "items": {"type": "string"}, "description": "routers that did not answer"},
            "retry_after_s": {"type": "integer", "description": "when to try again"},
        },
    }


def _parameters(query: type[msgspec.Struct]) -> list[Schema]:
    """A query's struct as parameters."""
    fields = msgspec.json.schema_components([query], ref_template=_REF)[1][query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "description": field.pop("description"), "schema": field}
        for name, field in fields.items()
    ]


def _in_path(name: str) -> Schema:
    schema = IN_PATH[name].schema
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

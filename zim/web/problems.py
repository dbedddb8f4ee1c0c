"""What is wrong, said as RFC 9457 wants it: the kinds of problems, and one problem as an error.

Each kind has a `type` that stays: programs look at it, people read `title` and `detail`. A member `key` names the field
or parameter that was wrong, `expected` says what would be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from zim.errors import ZimError

PROBLEM_JSON = "application/problem+json"
API = "/api/"  # where problems are said this way; goim's paths have their own


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problems. Its type is `urn:zim:problem:<name>`."""

    name: str
    status: int
    title: str

    @property
    def type(self) -> str:
        """The URI that names it."""
        return f"urn:zim:problem:{self.name}"


MALFORMED_JSON = Kind("malformed-json", 400, "This is not JSON")
INVALID_VALUE = Kind("invalid-value", 400, "A value is missing or wrong")
UNKNOWN_FIELD = Kind("unknown-field", 400, "There is no such field or parameter")
IDEMPOTENCY_KEY = Kind("idempotency-key", 400, "The idempotency key cannot be used like this")
BROKEN_REQUEST = Kind("broken-request", 400, "The HTTP request is broken")
UNAUTHORIZED = Kind("unauthorized", 401, "An API key is needed")
FORBIDDEN = Kind("forbidden", 403, "The API key may not do this")
FOREIGN = Kind("foreign", 403, "This page or name is not welcome here")
NOT_FOUND = Kind("not-found", 404, "There is nothing at this path")
NO_PUSH = Kind("no-push", 404, "No router knows this push")
METHOD = Kind("method-not-allowed", 405, "The path does not take this method")
TOO_LARGE = Kind("too-large", 413, "The request is too large")
MEDIA_TYPE = Kind("unsupported-media-type", 415, "The body has another type than this path takes")
CONFLICT = Kind("conflict", 422, "The idempotency key belongs to another push")
LIMITED = Kind("limited", 429, "More than a limit allows; nothing was done")
DEFECT = Kind("defect", 500, "zim has a defect")
UNAVAILABLE = Kind("unavailable", 503, "Not possible at the moment; nothing was done")
UNKNOWN = Kind("unknown", 504, "It is not known whether all of it was done")

KINDS = tuple(value for value in list(globals().values()) if isinstance(value, Kind))


class Problem(ZimError):
    """Why a request, or one line of a batch, is not answered as wished.

    Args:
        kind: which kind of problem.
        detail: what is wrong with this request, for a person.
        retry_after_s: when it is worth another try; None: nobody knows.
        members: further members of the answer; those that are None are left out.
    """

    def __init__(self, kind: Kind, detail: str, *, retry_after_s: int | None = None, **members: object) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail
        self.members = {"retry_after_s": retry_after_s, **members}
        self.headers: dict[str, str] = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.status = kind.status

    def document(self, **more: object) -> dict[str, Any]:
        """Its members, RFC 9457 3.1, and more behind them."""
        kind = self.kind
        members = {name: value for name, value in {**self.members, **more}.items() if value is not None}
        return {"type": kind.type, "title": kind.title, "status": self.status, "detail": self.detail, **members}

    def encode(self, **more: object) -> bytes:
        """Its document as JSON."""
        return msgspec.json.encode(self.document(**more))


def refused(status: int, why: str, retry_after_s: int | None = None) -> Problem:
    """The problem of a request that broke HTTP's rules, or the server's limits, and never reached a view."""
    kind = {403: FOREIGN, 413: TOO_LARGE, 500: DEFECT, 503: UNAVAILABLE}.get(status, BROKEN_REQUEST)
    problem = Problem(kind, why, retry_after_s=retry_after_s)
    problem.status = status
    return problem


def defect() -> Problem:
    """The problem of an error that we did not foresee."""
    why = "the server's log has the error; whether a push was kept is not known, send it again with its key"
    return Problem(DEFECT, why)

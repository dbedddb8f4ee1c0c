"""The Flask app: the APIs, and what is answered where none of them is meant."""

from __future__ import annotations

import logging
import re
from collections import Counter
from functools import partial

from flask import Flask, Request, Response, request
from typing_extensions import override
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter

from zim.errors import Unavailable, Unknown
from zim.fabric.health import Health
from zim.fabric.port import Fabric
from zim.fabric.principals import Forbidden, Principals, Unauthorized
from zim.net.http1 import BodyLimits
from zim.web import api, health, v1, welcome
from zim.web.keys import Keys, forbidden, unauthorized
from zim.web.problems import API, METHOD, NOT_FOUND, Problem, defect, refused

log = logging.getLogger(__name__)
audit = logging.getLogger("zim.audit")

NO_PATH = "?"  # no rule has it


class App(Flask):
    """See `create_app`.

    Attributes:
        answered: how many requests, by the rule of their path (`/api/pushes/*`, NO_PATH without one) and status.
    """

    answered: Counter[tuple[str, int]]

    @override
    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Match by path and method only: Flask would parse Host for every request, and no rule looks at it."""
        if request is None:
            return None
        path = request.path
        if request.environ["PATH_INFO"].startswith("//"):  # werkzeug takes //1/push for /1/push
            path = "/" + NO_PATH
        return MapAdapter(self.url_map, "localhost", "/", "", "http", path, request.method)


def create_app(fabric: Fabric, max_body_bytes: int, keys: Keys | None = None, ask: health.Ask = Health) -> App:
    """The app of a logic node. Its server must hand it whole requests, as `zim.web.server` does.

    Args:
        fabric: what it calls.
        max_body_bytes: of one push; above it the answer is 413.
        keys: of those who may ask; None for anybody.
        ask: how the node fares.
    """
    app = App("zim.web", static_folder=None, template_folder=None)
    app.answered = Counter()
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False  # goim's paths are exact: no redirects
    keys = keys or Keys(Principals())
    v1.add_to(app, fabric, keys, max_body_bytes)
    api.add_to(app, fabric, keys, max_body_bytes)
    health.add_to(app, ask)
    welcome.add_to(app)
    app.after_request(partial(_count, app.answered))
    app.register_error_handler(Problem, api.problem_answer)
    app.register_error_handler(Unauthorized, _not_allowed)
    app.register_error_handler(Forbidden, _not_allowed)
    app.register_error_handler(Unavailable, _unavailable)
    app.register_error_handler(Unknown, _unavailable)
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(Exception, _failed)
    return app


def request_limits(max_body_bytes: int) -> BodyLimits:
    """How many bytes the body of a request to the app may have, given the limit of one push."""
    return BodyLimits(v1.max_request_bytes(max_body_bytes), api.max_request_bytes(max_body_bytes))


def _count(answered: Counter[tuple[str, int]], response: Response) -> Response:
    path = NO_PATH if request.url_rule is None else re.sub("<.*>", "*", request.url_rule.rule)
    answered[path, response.status_code] += 1
    return response


def _refused(error: HTTPException) -> Response:
    """What Go's net/http and goim answer to a wrong path or method; under /api/ a problem."""
    error.__traceback__ = error.__context__ = None  # Flask's request keeps it, and its frames keep the request
    methods = sorted(getattr(error, "valid_methods", None) or ())
    if request.path.startswith(API):
        return api.problem_answer(_problem(error, methods))
    if isinstance(error, MethodNotAllowed):
        return v1.answer(b"Method Not Allowed\n", 405, {"Allow": ", ".join(m for m in methods if m != "HEAD")})
    if error.code == 404:
        return v1.answer(b"404 page not found\n", 404)
    return v1.answer(v1.FAILED, error.code or 500)


def _problem(error: HTTPException, methods: list[str]) -> Problem:
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(methods)
        problem = Problem(METHOD, f"{request.method} is not for {request.path}, {allow} is", allowed=methods)
        problem.headers["Allow"] = allow
        return problem
    if error.code == 404:
        return Problem(NOT_FOUND, f"{request.path} is no path of this API; {API}openapi.json has those that are")
    return refused(error.code or 500, error.description or error.name)


def _unavailable(error: Unavailable | Unknown) -> Response:
    """A router does not answer."""
    return api.unavailable(error) if request.path.startswith(API) else v1.unavailable(error)


def _not_allowed(error: Unauthorized | Forbidden) -> Response:
    """Who asks is nobody, or may not do that. The audit has it."""
    environ = request.environ
    fields = {"client": environ.get("REMOTE_ADDR", ""), "path": request.path, "reason": str(error)}
    audit.warning("request refused", extra=fields)
    error.__traceback__ = error.__context__ = None
    if not request.path.startswith(API):
        return v1.refused(error)
    return api.problem_answer(forbidden(error) if isinstance(error, Forbidden) else unauthorized(error))


def _failed(error: Exception) -> Response:
    """A defect of ours: the log has it, the backend learns that its push may or may not have been kept."""
    log.error("request failed", exc_info=error, extra={"path": request.path})
    return api.problem_answer(defect()) if request.path.startswith(API) else v1.answer(v1.FAILED, 500)

"""The Flask app: the APIs, and what is answered where none of them is meant."""

from __future__ import annotations

import logging

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter

from zim.web import health, v1
from zim.web.fabric import Fabric

log = logging.getLogger(__name__)

NO_PATH = "?"  # no rule has it


class _App(Flask):
    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Match by path and method only: Flask would parse Host for every request, and no rule looks at it."""
        if request is None:
            return None
        path = request.path
        if request.environ["PATH_INFO"].startswith("//"):  # werkzeug takes //1/push for /1/push
            path = "/" + NO_PATH
        return MapAdapter(self.url_map, "localhost", "/", "", "http", path, request.method)


def create_app(fabric: Fabric, max_body_bytes: int) -> Flask:
    """The app of a logic node. Its server must hand it whole requests, as `zim.web.server` does.

    Args:
        fabric: what it calls.
        max_body_bytes: of one push; above it the answer is 413.
    """
    app = _App("zim.web", static_folder=None, template_folder=None)
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False  # goim's paths are exact: no redirects
    v1.add_to(app, fabric, max_body_bytes)
    health.add_to(app)
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(Exception, _failed)
    return app


def _refused(error: HTTPException) -> Response:
    """What Go's net/http and goim answer to a wrong path or method."""
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(set(error.valid_methods or ()) - {"HEAD"}))
        return v1.answer(b"Method Not Allowed\n", 405, {"Allow": allowed})
    if error.code == 404:
        return v1.answer(b"404 page not found\n", 404)
    return v1.answer(v1.FAILED, error.code or 500)


def _failed(error: Exception) -> Response:
    """A defect of ours: the log has it, the backend learns that its push may or may not have been kept."""
    log.error("request failed", exc_info=error, extra={"path": request.path})
    return v1.answer(v1.FAILED, 500)

"""An answer of an API: its bytes and headers as they are."""

from __future__ import annotations

from collections.abc import Mapping
from wsgiref.types import WSGIEnvironment

from flask import Response
from typing_extensions import override
from werkzeug.datastructures import Headers


class ExactResponse(Response):
    """Response without what werkzeug does for browsers."""

    @override
    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """The headers as they are: there is no Location and no length to correct."""
        return self.headers


def respond(body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer."""
    return ExactResponse(body, status, dict(headers or {}), content_type=content_type)

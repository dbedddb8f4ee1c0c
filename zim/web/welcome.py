"""`GET /`: what this is, and where to go on, for whoever opens the address in a browser or with curl."""

from __future__ import annotations

from flask import Flask, Response

from zim import __version__
from zim.web.response import respond

_TEXT = f"""zim {__version__}: push messages here, clients get them from a comet.

GET  /api/openapi.json    what there is under /api/
POST /api/push            {{"to":{{"users":["7"]}},"body":"hello"}}, as application/json
GET  /api/rooms           who is where
POST /1/push?uid=7        the same for backends of goim v1, and the rest under /1/
"""


def add_to(app: Flask) -> None:
    """Add it to the app."""
    app.add_url_rule("/", "welcome", _welcome, methods=["GET"], provide_automatic_options=False)


def _welcome() -> Response:
    return respond(_TEXT.encode(), "text/plain; charset=utf-8")

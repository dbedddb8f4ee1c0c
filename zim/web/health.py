"""`GET /healthz`: answered by the loop that does the work, so it falls silent when that loop hangs."""

from __future__ import annotations

from flask import Flask, Response


def add_to(app: Flask) -> None:
    """Add the endpoint to the app."""
    app.add_url_rule("/healthz", "/healthz", _healthz, methods=["GET"], provide_automatic_options=False)


def _healthz() -> Response:
    return Response(b'{"status":"ok"}', content_type="application/json")

"""`GET /healthz` and `GET /readyz`: does it live, and can it do its work? Nobody needs a key for them.

Both are answered by the loop that does the work, so they fall silent when that loop hangs.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from flask import Flask, Response

HEALTHY = b'{"status":"ok"}'

Missing = Callable[[], list[str]]
"""What a node waits for before it can do its work, each in words; nothing if it is ready."""


def readiness(missing: list[str]) -> tuple[int, bytes]:
    """Status and body of the answer to /readyz."""
    if not missing:
        return 200, HEALTHY
    return 503, msgspec.json.encode({"status": "not ready", "missing": missing})


def add_to(app: Flask, missing: Missing) -> None:
    """Add the endpoints to the app."""

    def readyz() -> Response:
        status, body = readiness(missing())
        return Response(body, status, content_type="application/json")

    app.add_url_rule("/healthz", "healthz", _healthz, methods=["GET"], provide_automatic_options=False)
    app.add_url_rule("/readyz", "readyz", readyz, methods=["GET"], provide_automatic_options=False)


def _healthz() -> Response:
    return Response(HEALTHY, content_type="application/json")

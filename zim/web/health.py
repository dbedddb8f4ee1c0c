"""`GET /healthz` and `GET /readyz`: does it live, and can it do its work? Nobody needs a key for them.

Both are answered by the loop that does the work, so they fall silent when that loop hangs.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from flask import Flask, Response

from zim.fabric.health import Health

HEALTHY = b'{"status":"ok"}'


Ask = Callable[[], Health]


def readiness(health: Health) -> tuple[int, bytes]:
    """Status and body of the answer to /readyz."""
    if health.is_ready and not health.missing:
        return 200, HEALTHY
    found = {"status": "ok" if health.is_ready else "not ready", "missing": health.missing}
    return 200 if health.is_ready else 503, msgspec.json.encode(found)


def add_to(app: Flask, health: Ask) -> None:
    """Add the endpoints to the app."""

    def readyz() -> Response:
        status, body = readiness(health())
        return Response(body, status, content_type="application/json")

    app.add_url_rule("/healthz", "healthz", _healthz, methods=["GET"], provide_automatic_options=False)
    app.add_url_rule("/readyz", "readyz", readyz, methods=["GET"], provide_automatic_options=False)


def _healthz() -> Response:
    return Response(HEALTHY, content_type="application/json")

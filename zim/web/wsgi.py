"""One call of a WSGI application, its answer gathered whole before any of it is sent.

Source: PEP 3333.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIApplication

Headers = list[tuple[str, str]]

IS_GONE = "zim.is_gone"  # in the environ: says whether the client has closed, so that nobody waits for it in vain


def call_app(app: WSGIApplication, environ: dict[str, Any]) -> tuple[str, Headers, bytes]:
    """Call it; gives status, headers and body of its answer.

    Nothing is sent before the application is done, so it may replace its answer by that to an error until then.

    Switches, as the application does.

    Raises:
        RuntimeError: it has not said status and headers, or said them twice without an error.
        Exception: what it let out.
    """
    said: list[tuple[str, Headers]] = []
    pieces: list[bytes] = []

    def start_response(status: str, headers: Headers, error: object = None, /) -> Callable[[bytes], object]:
        if error is None and said:
            raise RuntimeError("start_response was called twice")
        if error is not None:
            pieces.clear()
        said[:] = [(status, list(headers))]
        return pieces.append

    answer = app(environ, start_response)
    try:
        for piece in answer:
            pieces.append(piece)  # noqa: PERF402 - one by one: what comes first may write, or replace all of it
    finally:
        getattr(answer, "close", lambda: None)()
    if not said:
        raise RuntimeError("start_response was not called")
    ((status, headers),) = said
    return status, headers, b"".join(pieces)

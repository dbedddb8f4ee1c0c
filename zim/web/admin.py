"""A node's `admin` address: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever watches over it.

Both are answered by the loop that does the node's work, so they fall silent when that loop hangs. No Flask: a job or a
comet has no other use for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from zim.fabric.principals import Forbidden, Unauthorized
from zim.metrics import CONTENT_TYPE_LATEST, Metric, Page
from zim.net.http1 import BodyLimits
from zim.net.visitors import ANYBODY, Visitors
from zim.web.health import HEALTHY, Missing, readiness
from zim.web.keys import CHALLENGE, Keys
from zim.web.server import HttpServer

TIMEOUT_S = 10.0  # for reading a request, and between two
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


def admin_server(
    read: Callable[[], Iterable[Metric]],
    missing: Missing,
    listener: tuple[str, int],
    visitors: Visitors = ANYBODY,
    keys: Keys | None = None,
    key: str = "admin",
) -> HttpServer:
    """A server that answers what a node tells of itself, once it is started.

    Args:
        read: see zim.metrics.Page.
        missing: what the node waits for.
        keys: of those who may see metrics; needed beyond loopback alone.
        listener: host and port.
        visitors: who is welcome.
        key: of the address in the topology, for the error.

    Raises:
        NodeError: the address cannot be had.
    """
    app = admin_app(read, missing, None if visitors.is_local else keys)
    return HttpServer(app, listener, TIMEOUT_S, BodyLimits(0), key=key, visitors=visitors)


def admin_app(read: Callable[[], Iterable[Metric]], missing: Missing, keys: Keys | None) -> WSGIApplication:
    """The WSGI application of such a server. keys: None if nobody needs one."""
    page = Page(read)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        status, content_type, body, more = _answer(environ, page, missing, keys)
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), *more]
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [body]

    return answer


def _answer(
    environ: WSGIEnvironment, page: Page, missing: Missing, keys: Keys | None
) -> tuple[int, str, bytes, list[tuple[str, str]]]:
    """Status, content type, body and more headers."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return 405, TEXT, b"Method Not Allowed\n", [("Allow", "GET")]
    match environ["PATH_INFO"]:
        case "/healthz":
            return 200, JSON, HEALTHY, []
        case "/readyz":
            status, body = readiness(missing())
            return status, JSON, body, []
        case "/metrics":
            try:
                if keys is not None:
                    keys.principal(environ).require("metrics", ())
            except Unauthorized as e:
                return 401, TEXT, f"{e}\n".encode(), [("WWW-Authenticate", CHALLENGE)]
            except Forbidden as e:
                return 403, TEXT, f"{e}\n".encode(), []
            return 200, CONTENT_TYPE_LATEST, page.render(), []
    return 404, TEXT, b"there are /metrics, /healthz and /readyz\n", []

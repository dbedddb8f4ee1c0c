"""A node's `admin` address: `/metrics` for Prometheus, `/healthz` for whoever watches over it.

Both are answered by the loop that does the node's work, so they fall silent when that loop hangs. No Flask: a job or a
comet has no other use for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from zim.metrics import CONTENT_TYPE_LATEST, Metric, Page
from zim.net.http1 import BodyLimits
from zim.net.visitors import ANYBODY, Visitors
from zim.web.server import HttpServer

TIMEOUT_S = 10.0  # for reading a request, and between two
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


def admin_server(
    read: Callable[[], Iterable[Metric]], listener: tuple[str, int], visitors: Visitors = ANYBODY, key: str = "admin"
) -> HttpServer:
    """A server that answers what a node tells of itself, once it is started.

    Args:
        read: see zim.metrics.Page.
        listener: host and port.
        visitors: who is welcome.
        key: of the address in the topology, for the error.

    Raises:
        NodeError: the address cannot be had.
    """
    return HttpServer(admin_app(read), listener, TIMEOUT_S, BodyLimits(0), key=key, visitors=visitors)


def admin_app(read: Callable[[], Iterable[Metric]]) -> WSGIApplication:
    """The WSGI application of such a server."""
    page = Page(read)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        status, content_type, body = "200 OK", JSON, b'{"status":"ok"}'
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, content_type, body = "405 Method Not Allowed", TEXT, b"Method Not Allowed\n"
        elif environ["PATH_INFO"] == "/metrics":
            content_type, body = CONTENT_TYPE_LATEST, page.render()
        elif environ["PATH_INFO"] != "/healthz":
            status, content_type, body = "404 Not Found", TEXT, b"there are /metrics and /healthz\n"
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        if status.startswith("405"):
            headers.append(("Allow", "GET"))
        start_response(status, headers)
        return [body]

    return answer

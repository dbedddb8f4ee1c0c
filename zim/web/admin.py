"""A node's `admin` address: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever watches over it; and
`POST /drain`, which lets it hand on what it has, and end.

Both are answered by the loop that does the node's work, so they fall silent when that loop hangs. No Flask: a job or a
comet has no other use for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from typing_extensions import override

from zim.fabric.principals import Forbidden, Unauthorized
from zim.metrics import CONTENT_TYPE_LATEST, Metric, Page
from zim.net.handshakes import Handshakes
from zim.net.http1 import BodyLimits, Refused
from zim.net.visitors import ANYBODY, Visitors
from zim.web.health import HEALTHY, Ask, readiness
from zim.web.keys import CHALLENGE, Keys
from zim.web.problems import DEFECT, Problem
from zim.web.server import HttpServer, Said, status_line

audit = logging.getLogger("zim.audit")

TIMEOUT_S = 10.0  # for reading a request, and between two
TEXT, JSON = "text/plain; charset=utf-8", "application/json"
DRAIN = "/drain"


class Drain(NamedTuple):
    """How `POST /drain` is done.

    Attributes:
        keys: of those who may ask for it, with the scope "operate".
        begin: begins it, and says so in words. Does not switch.
    """

    keys: Keys
    begin: Callable[[], str]


def admin_server(
    read: Callable[[], Iterable[Metric]],
    health: Ask,
    listener: tuple[str, int],
    visitors: Visitors = ANYBODY,
    keys: Keys | None = None,
    key: str = "admin",
    handshakes: Handshakes | None = None,
    drain: Drain | None = None,
) -> HttpServer:
    """A server that answers what a node tells of itself, once it is started.

    Args:
        read: see zim.metrics.Page.
        health: how the node fares.
        keys: of those who may see metrics; None if everybody may.
        listener: host and port.
        visitors: who is welcome.
        handshakes: what stands before its connections.
        key: of the address in the topology, for the error.
        drain: None if it cannot be.

    Raises:
        NodeError: the address cannot be had.
    """
    app = admin_app(read, health, keys, drain)
    return _AdminServer(app, listener, TIMEOUT_S, BodyLimits(0), key=key, visitors=visitors, handshakes=handshakes)


def admin_app(
    read: Callable[[], Iterable[Metric]], health: Ask, keys: Keys | None, drain: Drain | None = None
) -> WSGIApplication:
    """The WSGI application of such a server. keys: None if nobody needs one."""
    page = Page(read)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        status, content_type, body, more = _answer(environ, page, health, keys, drain)
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), *more]
        start_response(status_line(status), headers)
        return [body]

    return answer


def _answer(
    environ: WSGIEnvironment, page: Page, health: Ask, keys: Keys | None, drain: Drain | None
) -> tuple[int, str, bytes, list[tuple[str, str]]]:
    """Status, content type, body and more headers."""
    if wrong := _wrong(environ):
        status, text = wrong
        return status, TEXT, f"{text}\n".encode(), _allow(status, environ)
    match environ["PATH_INFO"]:
        case "/healthz":
            return 200, JSON, HEALTHY, []
        case "/readyz":
            status, body = readiness(health())
            return status, JSON, body, []
    try:
        if environ["PATH_INFO"] == DRAIN:
            return _drain(environ, drain)
        if keys is not None:
            keys.principal(environ).require("metrics", ())
    except Unauthorized as e:
        return 401, TEXT, f"{e}\n".encode(), [("WWW-Authenticate", CHALLENGE)]
    except Forbidden as e:
        return 403, TEXT, f"{e}\n".encode(), []
    return 200, CONTENT_TYPE_LATEST, page.render(), []


def _drain(environ: WSGIEnvironment, drain: Drain | None) -> tuple[int, str, bytes, list[tuple[str, str]]]:
    """Raises: Unauthorized, Forbidden."""
    if drain is None:
        return 404, TEXT, b"this process cannot be drained\n", []
    who = drain.keys.principal(environ)
    who.require("operate", ())
    audit.warning("drain", extra={"by": who.id or environ.get("REMOTE_ADDR", "")})
    return 202, TEXT, f"{drain.begin()}\n".encode(), []


class _AdminServer(HttpServer):
    """Says in words what is wrong. Whoever comes here with a body has taken this for another port: the log says so."""

    refusal_level = logging.INFO

    @override
    def judge(self, why: Refused, environ: Mapping[str, Any]) -> Refused:
        """A body is taken by none of the paths: what is wrong is what would be without it."""
        wrong = _wrong(environ) if why.status == 413 else None
        return Refused(*wrong) if wrong else why

    @override
    def say(self, problem: Problem, environ: Mapping[str, Any]) -> Said:
        text = problem.kind.title if problem.kind is DEFECT else problem.detail
        headers = [("Content-Type", TEXT), *problem.headers.items(), *_allow(problem.status, environ)]
        return status_line(problem.status), headers, f"{text}\n".encode()


def _wrong(environ: Mapping[str, Any]) -> tuple[int, str] | None:
    """Status and words for another path, or another method."""
    if environ["PATH_INFO"] == DRAIN:
        return None if environ["REQUEST_METHOD"] == "POST" else (405, "Method Not Allowed")
    if environ["PATH_INFO"] not in ("/metrics", "/healthz", "/readyz"):
        return 404, "there are /metrics, /healthz, /readyz and POST /drain; pushes go to a logic's `http`"
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return 405, "Method Not Allowed"
    return None


def _allow(status: int, environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    right = "POST" if environ.get("PATH_INFO") == DRAIN else "GET"
    return [("Allow", right)] if status == 405 else []

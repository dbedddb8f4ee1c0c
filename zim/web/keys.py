"""Who a backend is: the API key of a request, RFC 6750 2.1. It is never looked for in a URL, which logs keep.

Authorization: Bearer zim_…
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zim.fabric.principals import NOT_KNOWN, Forbidden, Principal, Principals, Unauthorized
from zim.web.problems import FORBIDDEN, UNAUTHORIZED, Problem

CHALLENGE = 'Bearer realm="zim"'

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)


class Keys:
    """Finds the principals of requests.

    Args:
        principals: who is known.
        goim_header: see `show_goim_in`.
    """

    def __init__(self, principals: Principals, goim_header: str = "") -> None:
        self._principals = principals
        self.show_goim_in(goim_header)

    def show_goim_in(self, header: str) -> None:
        """Another header in which goim's backends may show their key; "" for none."""
        self._goim_header = f"HTTP_{header.upper().replace('-', '_')}" if header else ""

    def principal(self, environ: Mapping[str, Any], speaks_goim: bool = False) -> Principal:
        """Who sends a request. environ: of WSGI.

        Raises:
            Unauthorized: nobody who is known.
        """
        if not self._principals.needs_key:
            return self._principals.find(None)
        if speaks_goim and self._goim_header and (key := environ.get(self._goim_header)) is not None:
            return self._principals.find(str(key))
        header = environ.get("HTTP_AUTHORIZATION")
        if header is None:
            return self._principals.find(None)
        if (found := _BEARER.fullmatch(str(header))) is None:
            raise Unauthorized("the header Authorization is no Bearer with a key; right is: Bearer zim_…")
        return self._principals.find(found[1])


def unauthorized(error: Unauthorized) -> Problem:
    """Nobody who is known."""
    why = str(error)
    if why == NOT_KNOWN:
        why = f"{why}; one that was made just now is known after zim reload"
    problem = Problem(UNAUTHORIZED, why)
    problem.headers["WWW-Authenticate"] = CHALLENGE
    return problem


def forbidden(error: Forbidden) -> Problem:
    """Somebody who may not do that."""
    return Problem(FORBIDDEN, str(error), scope=error.scope, stream=error.stream or None)

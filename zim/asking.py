"""HTTP requests to others: keys of issuers, and what an application says. The only importer of urllib3.

No redirect is followed and no proxy of the environment is used: what stands in the topology is asked, and nobody else.
"""

from __future__ import annotations

import logging
import ssl
from http.client import HTTPException
from pathlib import Path
from typing import Any

import gevent

from zim.errors import ZimError

MAX_ANSWER_BYTES = 256 << 10
KEPT = 64  # idle connections to one server
GRACE_S = 0.02  # sockets give up first, and close; this is for who says a byte now and then
_JSON = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "zim"}


class NotAnswered(ZimError):
    """Nothing has come, or too much, or too late."""


class HttpAsker:
    """Asks one server, over connections that it keeps.

    Args:
        ca: of those who sign its certificate, in PEM; None for the system's.

    Raises:
        ZimError: there are no such certificates.
    """

    def __init__(self, url: str, ca: Path | None = None) -> None:
        import urllib3  # not every logic needs it

        logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # its lines quote servers, and these may quote tokens
        self._url = url
        self._errors, self._late = urllib3.exceptions.HTTPError, urllib3.exceptions.TimeoutError
        self._refused = urllib3.exceptions.NewConnectionError
        context = None
        if url.startswith("https:"):
            try:
                context = ssl.create_default_context(cafile=None if ca is None else str(ca))
            except (OSError, ssl.SSLError) as e:
                raise ZimError(f"{ca}: no certificates in PEM: {e.strerror or e}") from None
        self._pool = urllib3.PoolManager(maxsize=KEPT, block=False, retries=False, ssl_context=context)

    def get(self, timeout_s: float) -> tuple[int, bytes]:
        """Status and body of the answer. Switches. Raises: NotAnswered."""
        return self._ask("GET", None, timeout_s)

    def post(self, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        """Status and body of the answer. Switches. Raises: NotAnswered."""
        return self._ask("POST", body, timeout_s)

    def _ask(self, method: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        late = gevent.Timeout(timeout_s + GRACE_S)
        try:
            with late:
                answer: Any = self._pool.request(
                    method,
                    self._url,
                    body=body,
                    headers=_JSON,
                    redirect=False,
                    preload_content=False,
                    timeout=timeout_s,
                )
                try:
                    content = b""
                    while len(content) <= MAX_ANSWER_BYTES and (piece := answer.read1(1 << 16)):
                        content += piece
                    if len(content) <= MAX_ANSWER_BYTES:
                        answer.release_conn()
                        return answer.status, content
                finally:
                    if not answer.isclosed():
                        answer.close()
        except gevent.Timeout as e:
            if e is not late:
                raise
            raise NotAnswered(f"no answer within {timeout_s:g} s") from None
        except (self._errors, OSError, ValueError) as e:  # ValueError: http.client has met a chunk of -2 bytes
            is_late = isinstance(e, self._late) and not isinstance(e, self._refused)
            raise NotAnswered(f"no answer within {timeout_s:g} s" if is_late else _short(e)) from None
        raise NotAnswered(f"an answer of more than {MAX_ANSWER_BYTES} bytes")


def _short(error: Exception) -> str:
    """Without the object that urllib3 puts in front, and without what has come: a token that was shown may be in it."""
    if any(
        isinstance(one, HTTPException | ValueError) and not isinstance(one, OSError) for one in (error, *error.args)
    ):
        return "what it answers is no HTTP"  # OSErrors among them: it hangs up, its certificate is not right
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text:  # OpenSSL's words
        return "no TLS is spoken there"
    return text.rpartition(">: ")[2] or text or type(error).__name__

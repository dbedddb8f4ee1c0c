"""Pushes over HTTP, for backends.

with Publisher("http://127.0.0.1:7172") as publisher:
    accepted = publisher.push(b'{"hello":1}', users=7)
    results = publisher.push_batch(Push(b"%d" % uid, users=uid) for uid in range(1000))
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus

from zim.client.address import list_addresses
from zim.client.backoff import Backoff
from zim.client.errors import CertificateError, PushError, PushRefused, PushUnavailable, PushUnknown
from zim.client.goim_pushes import GoimPushes
from zim.client.http import HttpLink
from zim.client.pushes import Accepted, Names, Push, encode_push, read_answer
from zim.client.tls import make_context
from zim.fabric.push import PUSH_OP

NO_KEY = "; Publisher takes one as api_key="  # behind what the fabric says to one without
_MAX_LINES = 1_000  # of a request
_MAX_BYTES = 256 << 10
_MAX_RECIPIENTS = 50_000  # zim takes 100,000
_Line = tuple[str, bytes]  # id, JSON
_Found = tuple[list[Accepted | PushError], float]  # what became of each line; how long to wait before the next request


class Publisher(GoimPushes):
    """Publishes to logic nodes. Threads and greenlets may share it: each has its own connection, kept alive.

    `push` and `push_batch` speak zim's own API. What is surely not accepted, or not known to be, is tried again for
    `retry_s` at the next node, with the same id, so that nothing is pushed twice. What is raised then is a PushError:

    - PushRefused: the request is wrong, and will be the next time; PushConflict: the id belongs to another push.
    - PushUnavailable: surely not accepted; PushUntrusted, at once: no certificate of the nodes can be verified.
    - PushUnknown: accepted or not, nobody knows. Pushing again with the error's `id` does not push twice.

    The other methods speak goim v1's API, to the first node, once.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        timeout_s: float = 15.0,
        retry_s: float = 15.0,
        ca: str | os.PathLike[str] | None = None,
        api_key: str = "",
    ) -> None:
        """Does not connect yet.

        Args:
            urls: `http://host:port` or `host:port`, of one logic node or several; `https://host` through a TLS proxy.
            timeout_s: for connecting, and for the answer.
            retry_s: for how long failed pushes are tried again; 0 for never.
            ca: for https, a file with the certificates of those who sign, in PEM; by default the system's store.
            api_key: who this is, `zim_…`; "" where none is needed.

        Raises:
            AddressError: a URL is something else.
            ClientError: `ca` is no such file, or the API key is none.
        """
        texts = list_addresses(urls, "http://127.0.0.1:7172")
        tls = make_context(texts, ca)
        self._links = [HttpLink(text, timeout_s, tls=tls, api_key=api_key) for text in texts]
        self._retry_s = retry_s
        self._has_key = bool(api_key)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Of the first node."""
        return self._links[0].address

    def close(self) -> None:
        """Closes this thread's connections. The next push opens others."""
        for link in self._links:
            link.close()

    def push(
        self,
        body: bytes | str,
        *,
        users: Names = (),
        rooms: Names = (),
        keys: Names = (),
        everybody: bool = False,
        op: int = PUSH_OP,
        ttl_s: float = 0.0,
        id: str = "",
        wait_s: float | None = None,
    ) -> Accepted:
        """Pushes once.

        Args:
            body, users, rooms, keys, everybody, op, ttl_s, id: those of Push.
            wait_s: for how long the answer may wait for the receipt, 0 to 30; it comes when nothing is pending and no
                report awaited any more, or the time is over. None: there is no receipt.

        Raises:
            PushError: see Publisher.
        """
        key = id or make_id()
        line = encode_push(Push(body, users, rooms, keys, everybody, op, ttl_s), key, wait_s)

        def attempt(link: HttpLink, lines: list[_Line]) -> _Found:
            answer = link.post("/api/push", line + b"\n", "application/json", wait_s or 0.0)
            return [read_answer(answer.status, answer.body, key, answer.retry_after_s)], answer.retry_after_s

        (result,) = self._settle([(key, line)], attempt)
        if isinstance(result, PushError):
            raise result
        return result

    def push_batch(self, pushes: Iterable[Push]) -> list[Accepted | PushError]:
        """Pushes many, some hundred a request.

        Those that fail are tried again by themselves, so a stream that has several of them may get them in another
        order.

        Returns:
            What became of each, in their order; the errors that `push` would raise.

        Raises:
            PushRefused: something is no push, or one for nobody; those before it may have been sent.
        """
        results: list[Accepted | PushError] = []
        for lines in _requests(pushes):
            results += self._settle(lines, _push_lines)
        return results

    def _with_remedy(self, result: Accepted | PushError) -> Accepted | PushError:
        """The error of one who has no API key where one is needed says where it belongs."""
        if isinstance(result, PushRefused) and result.status == HTTPStatus.UNAUTHORIZED and not self._has_key:
            return PushRefused(f"{result}{NO_KEY}", result.status, result.id)
        return result

    def _settle(
        self, lines: list[_Line], attempt: Callable[[HttpLink, list[_Line]], _Found]
    ) -> list[Accepted | PushError]:
        """Sends these in one request, and what fails again, until all is settled or the time is over."""
        results: list[Accepted | PushError | None] = [None] * len(lines)
        open_, unknown = list(range(len(lines))), set[int]()
        deadline, backoff = time.monotonic() + self._retry_s, Backoff(0.1, 2.0)
        links, n_attempts = list(self._links), 0
        while True:
            link, left = links[n_attempts % len(links)], [lines[at] for at in open_]
            try:
                found, wait_s = attempt(link, left)
            except PushError as error:
                found, wait_s = [type(error)(str(error), 0, key) for key, _ in left], 0.0
                if isinstance(error, CertificateError):
                    links.remove(link)
            for at, result in zip(open_, found, strict=True):
                unknown |= {at} if isinstance(result, PushUnknown) else set()
                results[at] = self._with_remedy(_honest(result, at in unknown))
            open_ = [at for at in open_ if _may_do_later(results[at])]
            n_attempts += 1
            if n_attempts < len(self._links) and self._retry_s and wait_s == 0:
                wait_s = 0.001  # another node may do at once
            else:
                wait_s = max(wait_s, backoff.next_s())
            if not open_ or not links or time.monotonic() + wait_s > deadline:
                return [result for result in results if result is not None]
            time.sleep(wait_s)


def make_id() -> str:
    """An idempotency key that nobody else has."""
    return secrets.token_hex(12)


def _push_lines(link: HttpLink, lines: list[_Line]) -> _Found:
    """Pushes these in one batch."""
    answer = link.post("/api/push/batch", b"".join([line + b"\n" for _, line in lines]), "application/x-ndjson")
    wait_s = answer.retry_after_s
    if answer.status != 200:
        return [read_answer(answer.status, answer.body, key, wait_s) for key, _ in lines], wait_s
    texts = answer.body.split(b"\n", len(lines))
    texts += [b""] * (len(lines) - len(texts))
    found = [read_answer(0, text, key) for text, (key, _) in zip(texts, lines, strict=False)]
    waits_s = [result.retry_after_s for result in found if isinstance(result, PushUnavailable)]
    return found, max(waits_s, default=0.0)


def _may_do_later(result: Accepted | PushError | None) -> bool:
    """Whether another attempt makes sense; not where a server does not speak zim's API at all."""
    is_strange = isinstance(result, PushUnknown) and 200 <= result.status < 500
    return isinstance(result, PushUnavailable | PushUnknown) and not is_strange


def _honest(result: Accepted | PushError, is_unknown: bool) -> Accepted | PushError:
    """An attempt that surely failed does not undo an earlier one of which nobody knows."""
    if is_unknown and isinstance(result, PushUnavailable):
        text = f"an earlier attempt may have been accepted, the last one was not: {result}"
        return PushUnknown(text, result.status, result.id)
    return result


def _requests(pushes: Iterable[Push]) -> Iterator[list[_Line]]:
    """The lines of each request."""
    lines: list[_Line] = []
    size = recipients = 0
    if not isinstance(pushes, Iterable) or isinstance(pushes, str | bytes):
        raise PushRefused(f"a batch is a list of Push(…), not {pushes!r:.100}")
    for push in pushes:
        if not isinstance(push, Push):
            raise PushRefused(f"a batch is a list of Push(…), and {push!r:.100} is none")
        key = push.id or make_id()
        line = encode_push(push, key)
        n = line.count(b",")  # there are fewer recipients than commas
        is_full = len(lines) == _MAX_LINES or size + len(line) > _MAX_BYTES or recipients + n > _MAX_RECIPIENTS
        if lines and is_full:
            yield lines
            lines, size, recipients = [], 0, 0
        lines.append((key, line))
        size += len(line) + 1
        recipients += n
    if lines:
        yield lines

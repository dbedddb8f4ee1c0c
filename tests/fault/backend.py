"""A backend over HTTP: pushes one by one and in batches, and reads streams back."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.fault.history import Entry, Log, Push

TIMEOUT_S = 12.0  # more than logic waits for its routers
IDLE_S = 4.0  # after which a connection is not used again: the server may be about to close it


@dataclass(frozen=True)
class Answer:
    """What HTTP said. status: 0 if the connection broke or nothing came. json: None if it is none."""

    status: int
    json: Any = None
    push_id: str = ""
    text: bytes = b""


class Backend:
    """Talks to the logics over HTTP. One connection to each is kept open; used by one greenlet.

    Args:
        logics: `host:port`, by name.
    """

    def __init__(self, logics: dict[str, str], timeout_s: float = TIMEOUT_S) -> None:
        self.names = list(logics)
        self._logics, self._timeout_s = logics, timeout_s
        self._open: dict[str, tuple[http.client.HTTPConnection, float]] = {}  # and when it was used last

    def another(self) -> Backend:
        """One for another greenlet."""
        return Backend(self._logics, self._timeout_s)

    def close(self) -> None:
        """Hangs up; a later request connects anew."""
        for connection, _ in self._open.values():
            connection.close()
        self._open.clear()

    def ask(
        self, method: str, path: str, body: bytes = b"", logic: str = "", content: str = "application/json"
    ) -> Answer:
        """One request, asked once: what broke is not repeated."""
        name = logic or self.names[0]
        connection, used_at = self._open.pop(name, (None, 0.0))
        if connection and time.monotonic() - used_at > IDLE_S:
            connection.close()
            connection = None
        if connection is None:
            connection = http.client.HTTPConnection(self._logics[name], timeout=self._timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": content} if body else {})
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return Answer(0)
        if response.will_close:
            connection.close()
        else:
            self._open[name] = (connection, time.monotonic())
        found = None
        with contextlib.suppress(ValueError):
            found = json.loads(text)
        return Answer(response.status, found, response.headers.get("X-Zim-Push-Id", ""), text)

    def push(self, push: Push, logic: str) -> Answer:
        """Asks for one push, once: with `POST /api/push` if it has a key or a ttl, else as goim's backends do."""
        body = body_of(push)
        if push.key or push.ttl_s:
            return self.ask("POST", "/api/push", _line(push), logic)
        first = push.streams[0]
        if first == "*":
            return self.ask("POST", "/1/push/all", body, logic)
        if first[0] == "r":
            return self.ask("POST", f"/1/push/room?rid={first[2:]}", body, logic)
        if len(push.streams) == 1:
            return self.ask("POST", f"/1/push?uid={first[2:]}", body, logic)
        uids = ",".join(stream[2:] for stream in push.streams)
        return self.ask("POST", "/1/pushs", b'{"u":[%b],"m":%b}' % (uids.encode(), body), logic)

    def push_batch(self, pushes: Sequence[Push], logic: str) -> list[Answer]:
        """Asks for many in one request, once: an answer for each."""
        whole = self.ask("POST", "/api/push/batch", b"\n".join(map(_line, pushes)), logic, "application/x-ndjson")
        if whole.status != 200:
            return [Answer(whole.status)] * len(pushes)
        found = [json.loads(line) for line in whole.text.splitlines()]
        assert len(found) == len(pushes), f"{len(found)} answers to {len(pushes)} pushes"
        return [Answer(200 if one["status"] == "accepted" else one["status"], one, one.get("id", "")) for one in found]

    def has(self, path: str, method: str = "GET") -> bool:
        """Whether the API knows that path."""
        return self.ask(method, path).status not in (0, 404, 405)

    def log(self, stream: str, logic: str = "", limit: int = 500) -> Log | None:
        """A whole stream, read back a page at a time; None if it cannot be had."""
        found: Log | None = None
        after = 0
        while True:
            answer = self.ask("GET", f"/api/streams/{quote(stream, safe='')}?after={after}&limit={limit}", logic=logic)
            if answer.status != 200:
                return None
            page = answer.json
            if found is None:
                found = Log(stream, page["epoch"], page["first"], page["head"])
            found.head = page["head"]
            for message in page["messages"]:
                body = message["body"]
                if isinstance(body, str):
                    with contextlib.suppress(ValueError):
                        body = json.loads(body)
                number = body.get("n", -1) if isinstance(body, dict) else -1
                found.entries.append(Entry(message["offset"], number))
            if not page["messages"] or found.entries[-1].offset >= found.head:
                return found
            after = found.entries[-1].offset


def body_of(push: Push) -> bytes:
    """The application's bytes: the push's number."""
    return b'{"n":%d}' % push.number


def recipients(push: Push) -> dict[str, Any]:
    """Its streams as users, rooms and everybody."""
    to: dict[str, Any] = {}
    for stream in push.streams:
        if stream == "*":
            to["everybody"] = True
        else:
            to.setdefault("users" if stream[0] == "u" else "rooms", []).append(stream[2:])
    return to


def _line(push: Push) -> bytes:
    """The document of `POST /api/push`; the body's bytes as `body_of` has them."""
    found: dict[str, Any] = {"to": recipients(push), "body": {"n": push.number}}
    if push.key:
        found["id"] = push.key
    if push.ttl_s:
        found["ttl_s"] = push.ttl_s
    return json.dumps(found, separators=(",", ":")).encode()

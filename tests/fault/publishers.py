"""Backends that number their pushes and write down what they were answered.

Half of the pushes carry a key where the fabric takes one; those are asked again, at another logic, until the answer is
certain. Those without are asked once: an answer that does not come leaves them unknown.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gevent

from tests.fault.history import Entry, Log, Push

TIMEOUT_S = 12.0  # more than logic waits for its routers
ATTEMPTS = 40
LAST_ATTEMPTS = 80
PAUSE_S = 0.25  # before an attempt is repeated
IDLE_S = 4.0  # after which a connection is not used again: the server may be about to close it

Clock = Callable[[], float]


@dataclass(frozen=True)
class Answer:
    """What HTTP said. status: 0 if the connection broke or nothing came. json: None if it is none."""

    status: int
    json: Any = None
    push_id: str = ""


class Backend:
    """Talks to the logics over HTTP. One connection to each is kept open; used by one greenlet.

    Args:
        logics: `host:port`, by name.
    """

    def __init__(self, logics: dict[str, str], timeout_s: float = TIMEOUT_S) -> None:
        self.names = list(logics)
        self._logics, self._timeout_s = logics, timeout_s
        self._open: dict[str, tuple[http.client.HTTPConnection, float]] = {}  # and when it was used last

    def close(self) -> None:
        """Hangs up; a later request connects anew."""
        for connection, _ in self._open.values():
            connection.close()
        self._open.clear()

    def ask(self, method: str, path: str, body: bytes = b"", logic: str = "") -> Answer:
        """One request, asked once: what broke is not repeated."""
        name = logic or self.names[0]
        connection, used_at = self._open.pop(name, (None, 0.0))
        if connection and time.monotonic() - used_at > IDLE_S:
            connection.close()
            connection = None
        if connection is None:
            connection = http.client.HTTPConnection(self._logics[name], timeout=self._timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
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
        return Answer(response.status, found, response.headers.get("X-Zim-Push-Id", ""))

    def push(self, push: Push, logic: str) -> Answer:
        """Asks for one push, once: with `POST /api/push` if it has a key, else as goim's backends do."""
        body = b'{"n":%d}' % push.number
        if push.key:
            to: dict[str, Any] = {}
            for stream in push.streams:
                if stream == "*":
                    to["everybody"] = True
                else:
                    to.setdefault("users" if stream[0] == "u" else "rooms", []).append(stream[2:])
            whole = {"to": to, "body": {"n": push.number}, "id": push.key}
            return self.ask("POST", "/api/push", json.dumps(whole).encode(), logic)
        first = push.streams[0]
        if first == "*":
            return self.ask("POST", "/1/push/all", body, logic)
        if first[0] == "r":
            return self.ask("POST", f"/1/push/room?rid={first[2:]}", body, logic)
        if len(push.streams) == 1:
            return self.ask("POST", f"/1/push?uid={first[2:]}", body, logic)
        uids = ",".join(stream[2:] for stream in push.streams)
        return self.ask("POST", "/1/pushs", b'{"u":[%b],"m":%b}' % (uids.encode(), body), logic)

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


@dataclass(frozen=True)
class World:
    """Whom publishers push to.

    Attributes:
        rooms: numbers in text, as goim wants them.
        has_keys: the fabric takes pushes with a key.
        weights: how often a push goes to a user, some users, a room, everybody, and (with a key) to users and a room.
    """

    uids: Sequence[int]
    rooms: Sequence[str]
    has_keys: bool
    weights: tuple[int, int, int, int, int] = (3, 2, 6, 1, 2)


class Publisher:
    """Pushes for ever, one after the other.

    Args:
        numbers: gives each push its number; one for all publishers.
        record: where the pushes go.
        rate: pushes a second; 0 for as fast as it can.
    """

    def __init__(
        self,
        logics: dict[str, str],
        world: World,
        numbers: Iterator[int],
        record: list[Push],
        clock: Clock,
        rng: random.Random,
        rate: float,
    ) -> None:
        self.answers: Counter[int] = Counter()
        self._backend = Backend(logics)
        self._world, self._numbers, self._record = world, numbers, record
        self._clock, self._rng, self._rate = clock, rng, rate
        self._is_stopping = False
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Ends it, once its last push is answered, or given up. `last()` may still be asked for."""
        self._is_stopping = True
        self._greenlet.get()
        self._backend.close()

    def kill(self) -> None:
        """Ends it at once."""
        self._greenlet.kill()
        self._backend.close()

    def _run(self) -> None:
        while not self._is_stopping:
            self.push(self._streams())
            gevent.sleep(self._rng.expovariate(self._rate) if self._rate else 0)

    def last(self, stream: str) -> Push:
        """Pushes to a stream until a push is accepted, or there is no hope. After it nothing more comes."""
        for _ in range(LAST_ATTEMPTS):
            push = self.push((stream,), is_urgent=True)
            if push.verdict == "accepted":
                break
            gevent.sleep(PAUSE_S)
        self._backend.close()
        return push

    def push(self, streams: tuple[str, ...], is_urgent: bool = False) -> Push:
        """One push, until its answer is certain or it is given up.

        Args:
            is_urgent: a refusal is not accepted: it is asked again.
        """
        number = next(self._numbers)
        has_key = self._world.has_keys and (len({s[0] for s in streams}) > 1 or is_urgent or self._rng.random() < 0.5)
        push = Push(number, streams, self._clock(), key=f"chaos-{number}" if has_key else "")
        self._record.append(push)
        logics = itertools.cycle(self._rng.sample(self._backend.names, len(self._backend.names)))
        statuses: set[int] = set()
        for logic in itertools.islice(logics, ATTEMPTS):
            push.attempts += 1
            answer = self._backend.push(push, logic)
            self.answers[answer.status] += 1
            statuses.add(answer.status)
            assert not 400 <= answer.status < 500, f"{push} is answered {answer}"
            push.answered_at = self._clock()
            push.push_id = answer.push_id or push.push_id
            if answer.status == 200:
                push.verdict = "accepted"
                if push.key:
                    push.push_id, push.offsets = answer.json["id"], answer.json["streams"]
                break
            if not push.key or (answer.status == 503 and not is_urgent and self._rng.random() < 0.5):
                break
            if self._is_stopping and not is_urgent and push.attempts > 4:
                break
            gevent.sleep(PAUSE_S)
        if statuses == {503}:
            push.verdict = "refused"
        return push

    def _streams(self) -> tuple[str, ...]:
        world, rng = self._world, self._rng
        users = [f"u:{uid}" for uid in world.uids]
        rooms = [f"r:{room}" for room in world.rooms]
        weights = world.weights if world.has_keys else (*world.weights[:4], 0)
        match rng.choices(("user", "users", "room", "all", "mixed"), weights)[0]:
            case "user":
                return (rng.choice(users),)
            case "users":
                return tuple(rng.sample(users, min(len(users), rng.randint(2, 5))))
            case "room":
                return (rng.choice(rooms),)
            case "all":
                return ("*",)
            case _:
                return (*rng.sample(users, 2), rng.choice(rooms))

"""The HTTP API of goim v1.2, as recorded from it: six endpoints under `/1/`.

First stop of a push. In: a request of a backend. Out: a Push to the fabric, and back what became of it, as `ret`.
Source: goim v1.2 `logic/http.go`. Where zim does otherwise, it says so here:

- Every push answer has an `X-Zim-Push-Id`, also where nothing was published.
- A push may have an `Idempotency-Key`. One that is none is 400, one that belongs to another push 422.
- A push over a limit of how much may be pushed is 429, with Retry-After.
- A body over the limit is 413, a fabric that keeps nothing for now 503 with Retry-After, one that cannot tell 504.
- A negative uid (which kills goim's router) and a rid beyond int32 (which goim truncates to some other room) are 65535.
- Where there are API keys, a request without a good one is 401, and one whose key may not do this 403.
- `/1/server/del` answers 65535 where goim sends nothing, and 1 for servers that nobody knows.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Sequence

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import MethodNotAllowed

from zim.errors import Unavailable, Unknown
from zim.fabric.answers import Counts
from zim.fabric.limits import RECIPIENTS
from zim.fabric.pauses import paused
from zim.fabric.port import Fabric
from zim.fabric.principals import Forbidden, Principal, Unauthorized
from zim.fabric.push import Push
from zim.fabric.questions import ForgetComet, OnlineCounts
from zim.fabric.streams import EVERYBODY, room_stream, user_stream
from zim.net.fairness import give_way
from zim.web.idempotency import parse_idempotency_key
from zim.web.keys import CHALLENGE, Keys
from zim.web.response import respond
from zim.web.values import parse_int, parse_pushs, query_value

log = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"  # of every answer, the JSON ones too, as in goim
OK = b'{"ret":1}'
FAILED = b'{"ret":65535}'

UIDS_BYTES = 1 << 20  # room for the uids of /1/pushs, on top of its message

_HTTP_STATUS = {"ok": 200, "unavailable": 503, "unknown": 504, "conflict": 422, "forbidden": 403, "limited": 429}
_RETRY_AFTER_S = 1  # a router that does not answer is back, or replaced, within seconds
_COMET = "comet-"  # before the number that goim calls a server
_ROOMLESS = -1  # the RoomId under which goim counts who is in no room
_PLAIN_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")


def max_request_bytes(max_body_bytes: int) -> int:
    """How many bytes a request's body may have, given the limit of one push."""
    return max_body_bytes + UIDS_BYTES


def add_to(app: Flask, fabric: Fabric, keys: Keys, max_body_bytes: int) -> None:
    """Add the endpoints to the app."""
    api = _Api(fabric, keys, max_body_bytes)
    endpoints: list[tuple[str, str, Callable[[], Response]]] = [
        ("POST", "/1/push", api.push),
        ("POST", "/1/pushs", api.pushs),
        ("POST", "/1/push/room", api.push_room),
        ("POST", "/1/push/all", api.push_all),
        ("POST", "/1/server/del", api.server_del),
        ("GET", "/1/count", api.count),
    ]
    for method, path, view in endpoints:
        app.add_url_rule(path, path, view, methods=[method], provide_automatic_options=False)


class _Api:
    def __init__(self, fabric: Fabric, keys: Keys, max_body_bytes: int) -> None:
        self._fabric, self._keys = fabric, keys
        self._max_body_bytes = max_body_bytes

    def push(self) -> Response:
        """`POST /1/push?uid=7`: the body to a user."""
        uid = parse_int(_query("uid"), 64)
        if uid is None or uid < 0:
            return self._publish(None, request.get_data(cache=False), "uid in the query: a number from 0 on")
        return self._publish([user_stream(str(uid))], request.get_data(cache=False))

    def pushs(self) -> Response:
        """`POST /1/pushs`, `{"u":[7,8],"m":…}`: the bytes of `m` to each of the users, once."""
        try:
            uids, body = parse_pushs(request.get_data(cache=False))
        except ValueError:
            return self._publish(None, b"", '{"m":…,"u":[7,8]}')
        if len(uids) > RECIPIENTS:
            return answer(FAILED, 413, {"X-Zim-Push-Id": secrets.token_hex(16)})
        if uids and min(uids) < 0:
            return self._publish(None, body, "users from 0 on")
        return self._publish([user_stream(str(uid)) for uid in dict.fromkeys(uids)], body)

    def push_room(self) -> Response:
        """`POST /1/push/room?rid=1&ensure=true`: the body to a room.

        `ensure` takes anything, as in goim, where it chooses between two ways of batching; zim keeps every push that
        it accepts, so it changes nothing.
        """
        rid = parse_int(_query("rid"), 32)
        # Nobody can be in a room below 0.
        streams = None if rid is None else [room_stream(str(rid))] if rid >= 0 else []
        return self._publish(streams, request.get_data(cache=False), "rid in the query: a number of 32 bits")

    def push_all(self) -> Response:
        """`POST /1/push/all`: the body to everybody."""
        return self._publish([EVERYBODY], request.get_data(cache=False))

    def server_del(self) -> Response:
        """`POST /1/server/del?server=1`: forget the sessions of a comet."""
        who = self._who()
        comet_id = parse_int(_query("server"), 32)
        if comet_id is None:
            return answer(FAILED)
        if comet_id >= 0:
            self._fabric.ask(ForgetComet(f"{_COMET}{comet_id}"), who)
        return answer(OK)

    def count(self) -> Response:
        """`GET /1/count?type=room`, `type=server`: sessions by room or by comet; any other type has no data."""
        if request.method != "GET":  # Flask adds HEAD to GET
            raise MethodNotAllowed(["GET"])
        who = self._who()
        kind = _query("type")
        if kind not in ("room", "server"):
            return answer(OK)
        counts = self._fabric.ask(OnlineCounts(), who)
        rows = _rooms(counts) if kind == "room" else _servers(counts)
        return answer(msgspec.json.encode({"data": rows, "ret": 1}))

    def _who(self) -> Principal:
        """Raises: Unauthorized: nobody who is known."""
        return self._keys.principal(request.environ, speaks_goim=True)

    def _publish(self, streams: Sequence[str] | None, body: bytes, right: str = "") -> Response:
        """Publish and answer: None are streams that could not be read, [] is nobody.

        Args:
            right: what would be instead of None, for the log: goim's answers do not say it.
        """
        who = self._who()
        if len(body) > self._max_body_bytes:
            return answer(FAILED, 413, {"X-Zim-Push-Id": secrets.token_hex(16)})
        if streams is None:
            log.info("request refused", extra={"status": 200, "path": request.path, "reason": f"right is {right}"})
        if not streams:
            return answer(FAILED if streams is None else OK, 200, {"X-Zim-Push-Id": secrets.token_hex(16)})
        try:
            key = parse_idempotency_key(request.environ.get("HTTP_IDEMPOTENCY_KEY"))
        except ValueError:
            return answer(FAILED, 400, {"X-Zim-Push-Id": secrets.token_hex(16)})
        published = self._fabric.publish(Push(streams, body, key=key), who)
        headers = {"X-Zim-Push-Id": published.push_id} if published.push_id else {}
        if published.status in ("unavailable", "limited"):
            headers["Retry-After"] = str(published.retry_after_s)
        return answer(OK if published.status == "ok" else FAILED, _HTTP_STATUS[published.status], headers)


def answer(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of this API; its type is always text."""
    return respond(body, TEXT, status, headers)


def unavailable(error: Unavailable | Unknown) -> Response:
    """The answer where a router is away."""
    if isinstance(error, Unknown):
        return answer(FAILED, 504)
    return answer(FAILED, 503, {"Retry-After": str(_RETRY_AFTER_S)})


def refused(error: Unauthorized | Forbidden) -> Response:
    """The answer to somebody who may not ask."""
    if isinstance(error, Forbidden):
        return answer(FAILED, 403)
    return answer(FAILED, 401, {"WWW-Authenticate": CHALLENGE})


def _query(key: str) -> str:
    return query_value(request.environ.get("QUERY_STRING", ""), key)


def _rooms(counts: Counts) -> list[dict[str, int]]:
    """A row per room that goim can name: its rooms are int32 numbers."""
    rooms = paused(counts.rooms.items(), give_way)
    numbers = {int(name): n for name, n in rooms if _PLAIN_NUMBER.fullmatch(name) and n > 0}
    if counts.roomless > 0:
        numbers[_ROOMLESS] = counts.roomless
    in_order = paused(sorted(numbers.items()), give_way)
    return [{"RoomId": number, "Count": n} for number, n in in_order if number < 1 << 31]


def _servers(counts: Counts) -> list[dict[str, int]]:
    numbers = {int(name.removeprefix(_COMET)): n for name, n in counts.comets.items() if n > 0}
    return [{"Server": number, "Count": n} for number, n in sorted(numbers.items())]

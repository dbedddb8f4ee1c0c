"""The six endpoints of goim v1, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.unit.web.support import MAX_BODY_BYTES, Client, Recorder, ask
from zim.errors import Unknown
from zim.fabric.answers import Counts
from zim.web.server import HttpServer

RECORDED = json.loads(Path(__file__).with_name("goim_v1_http.json").read_text())["scenarios"]
TEXT = "text/plain; charset=utf-8"
FAILED = {"ret": 65535}

THREE = Counts({"1": 3}, {"comet-1": 3}, 0)
KNOWN = {
    "count room": THREE,
    "count server": THREE,
    "count server after a close": THREE,
    "count room after server del": Counts({"1": 3}, {}, 0),
}
BETTER: dict[str, Any] = {
    "POST /1/server/del ''": FAILED,  # goim answers nothing at all
    "POST /1/server/del?server=abc ''": FAILED,
    # goim lists rooms that nobody is in any more
    "count room after server del": {"data": [{"RoomId": 1, "Count": 3}], "ret": 1},
}


@pytest.mark.parametrize("scenario", RECORDED, ids=lambda scenario: scenario["name"])
def test_answers_as_goim(scenario: dict[str, Any], server: HttpServer, fabric: Recorder) -> None:
    name = scenario["name"]
    fabric.known = KNOWN.get(name, fabric.known)

    answer = ask(server, scenario["method"], scenario["path"], scenario["body"].encode())

    assert answer.status == scenario["status"]
    assert answer.headers["content-type"] == TEXT
    expected = BETTER.get(name, scenario["answer"])
    if isinstance(expected, str):
        assert answer.body.decode() == expected
    else:
        # Go sorts the keys of a map, and leaves out white space
        assert answer.body.decode() == json.dumps(answer.json, separators=(",", ":"))
        assert list(answer.json) == sorted(answer.json)
        assert answer.json == expected


@pytest.mark.parametrize(
    ("path", "body", "streams", "pushed"),
    [
        ("/1/push?uid=7", b'{"a":1}', ["u:7"], b'{"a":1}'),
        ("/1/push?uid=%2B7", b"x", ["u:7"], b"x"),
        ("/1/push?uid=007", b"x", ["u:7"], b"x"),
        ("/1/push?uid=7&uid=8", b"x", ["u:7"], b"x"),
        ("/1/push?%75id=7", b"x", ["u:7"], b"x"),
        ("/1/push?uid=%zz&uid=8", b"x", ["u:8"], b"x"),
        ("/1/push?uid=-0", b"x", ["u:0"], b"x"),
        ("/1/push?uid=9223372036854775807", b"", ["u:9223372036854775807"], b""),
        ("/1/push?uid=7", bytes(range(256)), ["u:7"], bytes(range(256))),
        ("/1/push/room?rid=1", b"r", ["r:1"], b"r"),
        ("/1/push/room?rid=2147483647&ensure=maybe", b"r", ["r:2147483647"], b"r"),
        ("/1/push/all?uid=x", b"", ["*"], b""),
        ("/1/pushs", b'{"m": {"t" : 2} ,"u":[1,2]}', ["u:1", "u:2"], b'{"t" : 2}'),
        ("/1/pushs", b'{"M":"\xff\\ud800","U":[1]}', ["u:1"], b'"\xff\\ud800"'),
        ("/1/pushs", b'{"u":[3,1,3,1,null]}', ["u:3", "u:1", "u:0"], b""),
        ("/1/pushs", b'{"u":[1],"m":null}', ["u:1"], b"null"),
    ],
)
def test_publishes(
    path: str, body: bytes, streams: list[str], pushed: bytes, server: HttpServer, fabric: Recorder
) -> None:
    answer = ask(server, "POST", path, body)

    assert (answer.status, answer.json) == (200, {"ret": 1})
    assert answer.headers["x-zim-push-id"] == "push-1"
    assert fabric.published == [(streams, pushed)]


@pytest.mark.parametrize(
    ("path", "body", "ret"),
    [
        ("/1/push?uid=-5", b"x", 65535),
        ("/1/push?uid=9223372036854775808", b"x", 65535),
        ("/1/push?uid=+7", b"x", 65535),  # a plus in a query is a space
        ("/1/push?uid=7.0", b"x", 65535),
        ("/1/push?uid=1_0", b"x", 65535),
        ("/1/push?uid=%EF%BC%97", b"x", 65535),  # a full-width 7
        ("/1/push?uid=&uid=7", b"x", 65535),
        ("/1/push?UID=7", b"x", 65535),
        ("/1/push/room?rid=-1", b"x", 1),
        ("/1/push/room?rid=-2147483648", b"x", 1),
        ("/1/push/room?rid=2147483648", b"x", 65535),
        ("/1/push/room?rid=4294967297", b"x", 65535),
        ("/1/pushs", b"null", 1),
        ("/1/pushs", b'{"u":null,"m":1}', 1),
        ("/1/pushs", b'{"u":[1,-2],"m":1}', 65535),
        ("/1/pushs", b'{"u":[1.0],"m":1}', 65535),
        ("/1/pushs", b'{"u":[9223372036854775808]}', 65535),
        ("/1/pushs", b'{"u":[1]} {}', 65535),
        ("/1/pushs", b'{"u":[1],"m":' + b"[" * 100_000, 65535),
    ],
)
def test_publishes_nothing(path: str, body: bytes, ret: int, server: HttpServer, fabric: Recorder) -> None:
    answers = [ask(server, "POST", path, body) for _ in range(2)]

    assert [(answer.status, answer.json) for answer in answers] == [(200, {"ret": ret})] * 2
    assert fabric.published == []
    ids = {answer.headers["x-zim-push-id"] for answer in answers}
    assert len(ids) == 2


@pytest.mark.parametrize("path", ["/x", "/1", "/1/push/", "//1/push", "/1/count/", "/1/Push", "/1/push/room/", "*"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_unknown_paths(method: str, path: str, server: HttpServer) -> None:
    answer = ask(server, method, path)

    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.headers["content-type"] == TEXT


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "MERGE"])
@pytest.mark.parametrize(
    "path", ["/1/push?uid=1", "/1/pushs", "/1/push/room?rid=1", "/1/push/all", "/1/server/del", "/1/count"]
)
def test_wrong_methods(method: str, path: str, server: HttpServer, fabric: Recorder) -> None:
    right = "GET" if path == "/1/count" else "POST"

    answer = ask(server, method, path)

    if method == right:
        assert answer.status == 200
    else:
        assert answer.status == 405
        assert answer.body == (b"" if method == "HEAD" else b"Method Not Allowed\n")
        assert answer.headers["allow"] == right
        assert fabric.published == []


@pytest.mark.parametrize(("status", "http_status"), [("unavailable", 503), ("unknown", 504)])
@pytest.mark.parametrize(
    ("path", "body"),
    [("/1/push?uid=7", b"x"), ("/1/pushs", b'{"u":[1]}'), ("/1/push/room?rid=1", b""), ("/1/push/all", b"")],
)
def test_failures_of_the_fabric(
    path: str, body: bytes, status: Any, http_status: int, server: HttpServer, fabric: Recorder
) -> None:
    fabric.fail(status)

    answer = ask(server, "POST", path, body)

    assert (answer.status, answer.json) == (http_status, FAILED)
    assert answer.headers.get("retry-after") == ("3" if http_status == 503 else None)
    assert answer.headers["x-zim-push-id"] == "push-1"


@pytest.mark.parametrize("path", ["/1/push?uid=7", "/1/pushs", "/1/push/room?rid=7", "/1/push/all"])
def test_a_key(path: str, server: HttpServer, fabric: Recorder) -> None:
    body, other = (b'{"u":[7],"m":1}', b'{"u":[7],"m":2}') if path == "/1/pushs" else (b"1", b"2")
    [*answers, conflict, none] = [
        ask(server, "POST", path, what, f"Idempotency-Key: {header}\r\n")
        for what, header in ((body, "k"), (body, '"k"'), (other, "k"), (body, "a,b"))
    ]

    assert [(answer.status, answer.json) for answer in answers] == [(200, {"ret": 1})] * 2
    assert {answer.headers["x-zim-push-id"] for answer in answers} == {"push-1"}
    assert [len(kept) for kept in fabric.streams.values()] == [1]
    assert (conflict.status, conflict.json, conflict.headers["x-zim-push-id"]) == (422, FAILED, "push-1")
    assert (none.status, none.json) == (400, FAILED)
    assert none.headers["x-zim-push-id"]
    assert len(fabric.pushes) == 3


def test_a_router_away(server: HttpServer, fabric: Recorder) -> None:
    fabric.is_away = True

    for method, path in (
        ("GET", "/1/count?type=room"),
        ("GET", "/1/count?type=server"),
        ("POST", "/1/server/del?server=1"),
    ):
        answer = ask(server, method, path)
        assert (answer.status, answer.json) == (503, FAILED)
        assert int(answer.headers["retry-after"]) > 0
    assert ask(server, "GET", "/1/count?type=other").json == {"ret": 1}


@pytest.mark.parametrize("error", [ValueError("a defect"), gevent.Timeout(exception=None)])
def test_a_defect(error: BaseException, server: HttpServer, fabric: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    fabric.error = error

    answer = ask(server, "POST", "/1/push?uid=7", b"x")

    assert (answer.status, answer.json) == (500, FAILED)
    assert len([record for record in caplog.records if record.exc_info]) == 1
    fabric.error = None
    assert ask(server, "POST", "/1/push?uid=7", b"x").status == 200


def test_body_limit(server: HttpServer, fabric: Recorder) -> None:
    fits, too_large = b"x" * MAX_BODY_BYTES, b"x" * (MAX_BODY_BYTES + 1)

    for path in ("/1/push?uid=7", "/1/push/room?rid=7", "/1/push/all"):
        assert ask(server, "POST", path, fits).status == 200
        answer = ask(server, "POST", path, too_large)
        assert (answer.status, answer.json) == (413, FAILED)
        assert answer.headers["x-zim-push-id"]
    assert [body for _, body in fabric.published] == [fits] * 3


def test_pushs_limit_is_on_the_message(server: HttpServer, fabric: Recorder) -> None:
    uids = list(range(100_000))
    message = '"' + "x" * (MAX_BODY_BYTES - 2) + '"'

    assert ask(server, "POST", "/1/pushs", f'{{"u":{uids},"m":{message}}}'.encode()).status == 200
    assert ask(server, "POST", "/1/pushs", f'{{"u":[1],"m":[{message}]}}'.encode()).status == 413
    assert fabric.published == [([f"u:{uid}" for uid in uids], message.encode())]


def test_pushs_has_a_limit_of_users(server: HttpServer, fabric: Recorder) -> None:
    for count, status in ((100_000, 200), (100_001, 413)):
        assert ask(server, "POST", "/1/pushs", f'{{"u":{list(range(count))},"m":1}}'.encode()).status == status
    assert len(fabric.published) == 1


def test_the_log_says_what_goims_answers_do_not(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for path, body, right in (
        ("/1/push?user=7", b"1", "uid in the query"),
        ("/1/push?uid=-1", b"1", "uid in the query"),
        ("/1/push/room?rid=lobby", b"1", "rid in the query"),
        ("/1/pushs", b"nothing", '{"m":…,"u":[7,8]}'),
    ):
        caplog.clear()
        assert ask(server, "POST", path, body).json == FAILED
        [record] = [record for record in caplog.records if record.message == "request refused"]
        assert (record.__dict__["path"], right in record.__dict__["reason"]) == (path.partition("?")[0], True)


def test_counts(server: HttpServer, fabric: Recorder) -> None:
    rooms = {"10": 2, "9": 1, "lobby": 4, "007": 1, "-3": 1, "+4": 1, "2147483647": 1, "2147483648": 1, "5": 0, "٣": 1}
    fabric.known = Counts(rooms, {"comet-10": 1, "comet-2": 1, "comet-1": 5, "comet-3": 0}, 6)

    assert ask(server, "GET", "/1/count?type=room").body == (
        b'{"data":[{"RoomId":-1,"Count":6},{"RoomId":9,"Count":1},{"RoomId":10,"Count":2},'
        b'{"RoomId":2147483647,"Count":1}],"ret":1}'
    )
    assert ask(server, "GET", "/1/count?type=server").body == (
        b'{"data":[{"Server":1,"Count":5},{"Server":2,"Count":1},{"Server":10,"Count":1}],"ret":1}'
    )


def test_server_del(server: HttpServer, fabric: Recorder) -> None:
    answers = {
        server_id: ask(server, "POST", f"/1/server/del?server={server_id}").json["ret"]
        for server_id in ("1", "%2B2", "-1", "99", "2147483648", "1.0", "")
    }

    assert answers == {"1": 1, "%2B2": 1, "-1": 1, "99": 1, "2147483648": 65535, "1.0": 65535, "": 65535}
    assert fabric.forgotten == ["comet-1", "comet-2", "comet-99"]


def test_an_order_that_may_have_been_carried_out_is_504(server: HttpServer, fabric: Recorder) -> None:
    fabric.is_away = True
    assert ask(server, "POST", "/1/server/del?server=1").status == 503

    fabric.away = Unknown("router-1", "no answer within 5 s")
    answer = ask(server, "POST", "/1/server/del?server=1")
    assert (answer.status, answer.json) == (504, FAILED)


def test_health(server: HttpServer) -> None:
    answer = ask(server, "GET", "/healthz")

    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("host", ["", "[", "xn--\xff", "a" * 300, "..", "http://x", "a, b"])
def test_any_host(host: str, server: HttpServer) -> None:
    with Client(server) as client:
        client.send(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
        assert client.receive().status == 200

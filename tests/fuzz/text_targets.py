"""What is written in texts: documents of backends, tokens, keys, addresses, the topology, answers of applications."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.fuzz.target import Target, parts
from tests.unit.identity.signers import ISSUER, NOW, SECRET, compact, issuer
from zim.client.address import comet_address, logic_address, split_address
from zim.client.errors import AddressError
from zim.errors import TopologyError
from zim.fabric.bans import Networks, parse_network
from zim.fabric.grants import Denial, Grant, grant_problem
from zim.fabric.patterns import is_pattern, matches, matching
from zim.fabric.principals import ApiKey, Principals, Unauthorized
from zim.fabric.streams import is_room, is_stream, name_problem, room_stream
from zim.identity.keys import KeyProblem, read_jwks, read_pem, read_secret
from zim.identity.tokens import look_at, read_token, shape_problem
from zim.logs import FieldFormatter
from zim.net.visitors import Visitors
from zim.nodes.comet import websocket as upgrades
from zim.nodes.logic.callouts import NoAnswer, Reply
from zim.nodes.logic.desk import Desk, _read_joined
from zim.topology.browsers import host_problem, origin_problem
from zim.topology.endpoints import parse_link, parse_listener
from zim.topology.file import parse
from zim.topology.identity import Callout, Identity
from zim.web import control
from zim.web.idempotency import parse_idempotency_key
from zim.web.keys import Keys
from zim.web.problems import Problem
from zim.web.push import BATCH_LINE, PUSH_REQUEST, make_push, parse_header
from zim.web.queries import IN_PATH, HistoryQuery, ReceiptQuery, parse_name
from zim.web.reading import Reader
from zim.web.values import parse_int, parse_pushs, query_value

MOST_BYTES = 2_048


def _text(data: bytes) -> str:
    """As HTTP's headers and WSGI have it: each byte is a character."""
    return data.decode("latin-1")


def _quiet(what: Callable[[Any], object], wrong: type[Exception], value: Any) -> object:
    """What it finds; nothing if it says that it is wrong."""
    try:
        return what(value)
    except wrong:
        return None


_HS = issuer(["HS256"])
_KEYS = [read_secret(SECRET, ["HS256"])]
_HEADER = {"alg": "HS256"}


def _token(data: bytes) -> None:
    """Of anybody."""
    found = look_at(data)
    if found is None:
        assert shape_problem(data).isprintable()
        return
    answer = read_token(found, _HS, _KEYS, NOW)
    assert isinstance(answer, Denial), "nobody has signed it"
    assert answer.reason.isprintable()
    assert SECRET.decode() not in answer.reason + answer.detail


def _payload(data: bytes) -> None:
    """Whatever an issuer may sign."""
    header, payload = parts(data, 2)
    token = compact(header or _HEADER, payload, lambda text: hmac.digest(SECRET, text, sha256))
    if (found := look_at(token)) is None:
        return
    answer = read_token(found, _HS, _KEYS, NOW)
    if isinstance(answer, Grant):
        assert grant_problem(answer) == ""
        assert found.issuer == ISSUER
        assert found.algorithm == "HS256"
    else:
        assert answer.reason.isprintable()


def _jwks(data: bytes) -> None:
    for algorithms in (["RS256"], ["ES256", "ES384"], ["EdDSA"], ["HS256"]):
        for key in _quiet(lambda found, a=algorithms: read_jwks(found, a), KeyProblem, data) or ():  # type: ignore[misc,attr-defined]
            assert set(key.by_algorithm) <= set(algorithms)
            assert algorithms != ["HS256"], "a secret in a set of public keys"


_DESK = Desk(Identity(callout=Callout("https://app.example.com/c", "https://app.example.com/j")), {}, lambda: "1")


def _connected(data: bytes) -> None:
    status, body = parts(data, 2)
    found, holds_s = _DESK._read_connected(Reply(401 if status == b"401" else 200, body))
    assert holds_s >= 0
    if isinstance(found, Grant):
        assert status != b"401"
        assert grant_problem(found) == ""


def _joined(data: bytes) -> None:
    status, body = parts(data, 2)
    found, holds_s = _read_joined(Reply(403 if status == b"403" else 200, body))
    assert holds_s >= 0
    assert status != b"403" or not found.rooms


def _patterns(data: bytes) -> None:
    name, *patterns = data.decode(errors="replace").split("\0")[:5]
    patterns = [pattern for pattern in patterns if is_pattern(pattern)]
    found = matching(name[:300], patterns)
    assert (found != "") == matches(name[:300], patterns)
    if patterns and name and not set("*?[") & set(patterns[0]):
        assert matches(name[:300], patterns[:1]) == (name[:300] == patterns[0])


def _names(data: bytes) -> None:
    text = data.decode(errors="replace")
    for kind in IN_PATH:
        _quiet(lambda segment, k=kind: parse_name(k, segment), Problem, text)  # type: ignore[misc]
    if is_room(text):
        assert is_stream(room_stream(text))
    name_problem(text)


def _networks(data: bytes) -> None:
    text, address = (part.decode(errors="replace") for part in parts(data, 2))
    network = parse_network(text)
    assert parse_network(network) == network
    banned = Networks()
    banned.add(network, "x")
    banned.reason(address)
    banned.discard(network)
    assert len(banned) == 0


def _topology(data: bytes) -> None:
    parse(data.decode(errors="replace"), Path("/nowhere/topology.toml"))


def _listener(data: bytes) -> None:
    text = data.decode(errors="replace")
    for read in (parse_link, parse_listener):
        _quiet(read, ValueError, text)
    for problem in (origin_problem, host_problem):
        assert isinstance(problem(text), str)


def _addresses(data: bytes) -> None:
    text = data.decode(errors="replace")
    for read in (comet_address, logic_address, split_address):
        _quiet(read, AddressError, text)


_WELCOME = (
    Visitors(is_local=True),
    Visitors(origins=("https://app.example.com",), hosts=("push.example.com",)),
    Visitors(is_local=True, origins=("*",)),
)


def _visitors(data: bytes) -> None:
    """Origin, Host, Cookie."""
    origin, host, cookie = map(_text, parts(data, 3))
    environ = {"HTTP_ORIGIN": origin, "HTTP_HOST": host}
    for visitors in _WELCOME:
        assert isinstance(visitors.refusal(environ), str)
        assert visitors.allowed_origin(environ) in ("", origin)
    value = upgrades._cookie(cookie, "session")
    assert b";" not in value


def _upgrade(data: bytes) -> None:
    """Method, path, and the headers of an upgrade."""
    method, path, upgrade, connection, version, key = map(_text, parts(data, 6))
    problem = upgrades._problem(
        {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_UPGRADE": upgrade,
            "HTTP_CONNECTION": connection,
            "HTTP_SEC_WEBSOCKET_VERSION": version,
            "HTTP_SEC_WEBSOCKET_KEY": key,
        }
    )
    assert problem or (method, path, version) == ("GET", "/sub", "13")


_PRINCIPALS = Principals([ApiKey("a", (sha256(b"zim_right").hexdigest(),), {"push": ("*",)})])
_SHOWN = Keys(_PRINCIPALS, "X-Key")


def _api_key(data: bytes) -> None:
    header, goim = map(_text, parts(data, 2))
    found = _SHOWN.principal({"HTTP_AUTHORIZATION": header, **({"HTTP_X_KEY": goim} if goim else {})}, True)
    assert found.id == "a"
    assert "zim_right" in (goim or header)


def _push(data: bytes) -> None:
    header, document = parts(data, 2)
    push = make_push(PUSH_REQUEST.read(document), MOST_BYTES, parse_header(_text(header) or None))
    assert len(push.body) <= MOST_BYTES
    assert all(is_stream(stream) for stream in push.streams)


def _batch_line(data: bytes) -> None:
    make_push(BATCH_LINE.read(data), MOST_BYTES)


_CONTROLS = (control._KICK, control._BAN, control._MOVE)


def _people(data: bytes) -> None:
    for reader in _CONTROLS:
        _quiet(reader.read, Problem, data)


_QUERIES: tuple[Reader[Any], ...] = tuple(
    map(Reader, (HistoryQuery, ReceiptQuery, control.WhomQuery, control.BansQuery))
)


def _query(data: bytes) -> None:
    for reader in _QUERIES:
        _quiet(reader.read_query, Problem, _text(data))


def _goim_query(data: bytes) -> None:
    for key, bits in (("uid", 64), ("rid", 32), ("server", 32)):
        number = parse_int(query_value(_text(data), key), bits)
        assert number is None or abs(number) <= 1 << bits - 1


def _goim_pushs(data: bytes) -> None:
    uids, body = parse_pushs(data)
    assert body in data
    assert all(-(1 << 63) <= uid < 1 << 63 for uid in uids)


def _idempotency_key(data: bytes) -> None:
    key = parse_idempotency_key(_text(data))
    assert key.isascii()
    assert key.isprintable()


_FORMATTER = FieldFormatter("node-1")


def _log(data: bytes) -> None:
    """Whatever a stranger writes stays in its line of the log, and in its field."""
    text = data.decode("utf-8", "surrogateescape")
    record = logging.makeLogRecord({"name": "zim", "levelname": "INFO", "msg": "event", "client": text})
    line = _FORMATTER.format(record)
    assert line.isprintable(), "it could write what looks like another line"
    field = line.partition(" client=")[2]
    assert " " not in field or json.loads(field) is not None


TEXT_TARGETS: dict[str, Target] = {
    "tokens": Target(_token),
    "payloads of tokens": Target(_payload),
    "key sets": Target(_jwks),
    "keys in PEM": Target(lambda data: read_pem(data, ["RS256"]), (KeyProblem,)),
    "callout's connect": Target(_connected, (NoAnswer,)),
    "callout's join": Target(_joined, (NoAnswer,)),
    "patterns": Target(_patterns),
    "names in paths": Target(_names),
    "networks": Target(_networks, (ValueError,)),
    "topology": Target(_topology, (TopologyError,)),
    "addresses of listeners": Target(_listener),
    "addresses for clients": Target(_addresses),
    "origins, hosts, cookies": Target(_visitors),
    "websocket upgrades": Target(_upgrade),
    "api keys": Target(_api_key, (Unauthorized,)),
    "pushes": Target(_push, (Problem,)),
    "lines of a batch": Target(_batch_line, (Problem,)),
    "kicks, bans, moves": Target(_people),
    "queries": Target(_query),
    "goim's queries": Target(_goim_query),
    "goim's pushs": Target(_goim_pushs, (ValueError,)),
    "idempotency keys": Target(_idempotency_key, (ValueError,)),
    "lines of the log": Target(_log),
}

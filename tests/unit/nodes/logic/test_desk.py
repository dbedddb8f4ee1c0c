"""Who may come in: each token is shown to whoever can tell, and each who waits for an answer gets one."""

from __future__ import annotations

import gc
import json
import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.identity.signers import ISSUER, NOW, PAYLOAD, SECRET, TokenSigner, b64, compact, issuer, key_set
from zim.fabric.buckets import Rate
from zim.fabric.grants import ANONYMOUS, LIFETIME_S, Denial, Grant, grant_problem
from zim.fabric.limits import NAME_BYTES, PATTERNS, ROOMS, TOKEN_BYTES
from zim.identity.keys import Key
from zim.nodes.effects import Effect, Note
from zim.nodes.logic import desk
from zim.nodes.logic.callouts import FAILURES, OPEN_S, CallOut, Reply
from zim.nodes.logic.desk import CACHE_S, Desk, FetchKeys
from zim.nodes.logic.keysets import COOL_DOWN_S, KID_BYTES, NAMELESS, REFRESH_S
from zim.protocol.frame import VERSION
from zim.protocol.logins import AskJoin, Auth, Authed, MayJoin
from zim.topology.identity import Anonymous, Callout, Identity, Issuer

URL = "https://auth.example.com/keys"
CONNECT, JOIN = "https://app.example.com/zim/connect", "https://app.example.com/zim/join"
BOTH = Callout(CONNECT, JOIN)
A, B, C = (TokenSigner("ES256", name, number) for number, name in enumerate("abc"))
FETCHED = issuer(["ES256"], URL)
FIXED = issuer(["HS256"])
HS = TokenSigner("HS256")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
SOMEBODY = st.fixed_dictionaries(
    {},
    optional={
        "user": st.text(max_size=4) | st.integers() | JSON,
        "reason": st.text(max_size=4) | JSON,
        "expires_s": st.floats() | st.integers(-1, 100) | JSON,
        "cache_s": st.floats() | st.integers(-1, 100) | JSON,
        "device": st.text(max_size=3) | JSON,
        **dict.fromkeys(("rooms", "join", "read"), st.lists(st.text(max_size=3), max_size=3) | JSON),
    },
)


class Front:
    """A desk, and whoever comes to it. Time stands still unless a test lets it pass.

    Attributes:
        fetches: of keys, that have not ended; fetched: how many there were.
        requests: to the application, that have not ended, by what is asked and number.
        answers: of those who had to wait, by asker.
        notes: of the log.
    """

    def __init__(
        self,
        *issuers: Issuer,
        callout: Callout | None = None,
        anonymous: Anonymous | None = None,
        keys: dict[str, list[Key]] | None = None,
    ) -> None:
        self._ids = 0
        self.desk = Desk(Identity(issuers, callout, anonymous), keys or {}, self._new_id)
        self.now = 1_000.0
        self.fetches: list[FetchKeys] = []
        self.fetched = 0
        self.requests: dict[tuple[str, int], CallOut] = {}
        self.answers: dict[Any, list[Any]] = {}
        self.notes: list[Note] = []
        self._req = 0

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self._ids}"

    def show(
        self,
        token: bytes,
        asker: Any = "client",
        version: int = VERSION,
        address: str = "192.0.2.1:5",
        device: str = "",
        anonymous: bool = False,
    ) -> Grant | Denial | None:
        """What a token is; None if somebody else has to be asked first."""
        self._req += 1
        out: list[Effect] = []
        m = Auth(self._req, token, version, address, device, anonymous)
        authed = self.desk.log_in(asker, m, self.now, self.wall_s, out)
        self._take(out)
        if authed is None:
            return None
        assert authed.req == self._req
        return _found(authed)

    def ask(self, rooms: tuple[str, ...], asker: Any = "client", user: str = "7", device: str = "") -> MayJoin | None:
        """Which of these rooms a user may be in; None if the application has to be asked first."""
        self._req += 1
        out: list[Effect] = []
        found = self.desk.ask_join(asker, AskJoin(self._req, user, device, rooms), self.now, out)
        self._take(out)
        assert found is None or found.req == self._req
        return found

    @property
    def wall_s(self) -> float:
        """Starts at NOW."""
        return NOW + self.now - 1_000.0

    def _take(self, out: list[Effect]) -> None:
        for effect in out:
            if isinstance(effect, FetchKeys):
                self.fetches.append(effect)
                self.fetched += 1
            elif isinstance(effect, CallOut):
                self.requests[effect.caller.name, effect.number] = effect
            else:
                assert isinstance(effect, Note)
                self.notes.append(effect)

    def _answered(self, answers: list[tuple[Any, Any]]) -> None:
        for asker, m in answers:
            self.answers.setdefault(asker, []).append(_found(m) if isinstance(m, Authed) else m)

    def end_fetch(self, *signers: TokenSigner, document: bytes | None = None, why: str = "") -> None:
        """The oldest fetch ends: with a document, with the keys of these signers, or with nothing."""
        known = self.fetches.pop(0).keys
        if signers:
            document = key_set(*(signer.jwk() for signer in signers))
        out: list[Effect] = []
        self._answered(self.desk.on_keys(known, document, why, self.now, self.wall_s, out))
        self._take(out)

    def reply(self, body: Any, status: int = 200) -> None:
        """The application answers its oldest request. body: JSON's value, or bytes as they are."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.end_request(next(iter(self.requests)), Reply(status, text))

    def end_request(self, which: tuple[str, int], reply: Reply | str) -> None:
        request = self.requests.pop(which)
        out: list[Effect] = []
        self._answered(self.desk.on_reply(request.caller, request.number, reply, self.now, out))
        self._take(out)

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        out: list[Effect] = []
        self._answered(self.desk.on_tick(self.now, out))
        self._take(out)

    def answer(self, asker: Any = "client") -> Any:
        """The one that somebody who waited has got."""
        [found] = self.answers.pop(asker)
        return found

    def called(self, token: bytes, body: Any, status: int = 200, **more: Any) -> Any:
        """Of a token that the application is asked about, what comes of this answer."""
        assert self.show(token, **more) is None
        self.reply(body, status)
        return self.answer()


def _found(m: Authed) -> Grant | Denial:
    found = m.grant or m.denial
    assert found is not None
    assert (m.grant is None) != (m.denial is None)
    return found


def with_keys(*signers: TokenSigner, callout: Callout | None = None) -> Front:
    """One that has fetched the keys of these."""
    front = Front(FETCHED, callout=callout)
    front.tick()
    front.end_fetch(*signers)
    front.fetched = 0
    return front


def with_secret(callout: Callout | None = None, anonymous: Anonymous | None = None) -> Front:
    """One whose issuer's secret is in a file."""
    return Front(FIXED, callout=callout, anonymous=anonymous, keys={ISSUER: [HS.key()]})


def reason(found: Any, code: str = "refused") -> str:
    """Of a denial."""
    assert isinstance(found, Denial), found
    assert found.code == code
    assert found.reason.isprintable()
    assert SECRET.decode() not in found.reason + found.detail
    return found.reason


# ---------------------------------------------------------------- where nothing is set, and without a token


def test_where_nothing_is_set_goims_handler_believes_everybody() -> None:
    front = Front()
    assert front.show(b"7") == Grant("7", ("1",), ("*",), ("*",))
    assert front.show(b"x", version=1) == Grant("0", (), ("*",), ("*",))
    assert "no number" in reason(front.show(b"x"))
    assert "no number" in reason(front.show(b"", anonymous=True))
    assert (front.desk.admitted, front.desk.denied) == (2, {"refused": 2, "expired": 0, "try_again": 0})


def test_without_a_token_nobody_comes_in() -> None:
    for front in (with_secret(), Front(callout=BOTH), Front(anonymous=Anonymous())):
        for version in (VERSION, 1):
            assert reason(front.show(b"", version=version)) == "a token is needed"
    assert reason(with_secret().show(b"", anonymous=True)) == "a token is needed"


def test_where_a_listener_lets_them_in_people_without_a_token_have_names_of_their_own() -> None:
    front = with_secret(anonymous=Anonymous(("lobby",), ("chat-*",), ("r:news",)))
    assert front.show(b"", anonymous=True) == Grant(ANONYMOUS + "1", ("lobby",), ("chat-*",), ("r:news",))
    assert front.show(b"", anonymous=True) == Grant(ANONYMOUS + "2", ("lobby",), ("chat-*",), ("r:news",))
    assert reason(front.show(b"")) == "a token is needed"


def test_who_shows_a_wrong_token_is_not_let_in_as_nobody() -> None:
    front = with_secret(anonymous=Anonymous())
    assert "signature" in reason(front.show(TokenSigner("HS256", number=1).token(), anonymous=True))
    assert "no JWT" in reason(front.show(b"7", anonymous=True))
    assert reason(front.show(HS.token(exp=0), anonymous=True), "expired")


def test_rooms_of_people_without_a_token_are_asked_about_too() -> None:
    front = Front(callout=Callout("", JOIN), anonymous=Anonymous())
    found = front.show(b"", anonymous=True)
    assert isinstance(found, Grant)
    assert found.asks


@pytest.mark.parametrize(("token", "is_empty"), [(b'""', True), (b'"', False), (b"''", False), (b'" "', False)])
def test_goims_clients_on_websocket_send_a_string_of_json(token: bytes, is_empty: bool) -> None:
    front = with_secret(anonymous=Anonymous())
    assert isinstance(front.show(token, version=1, anonymous=True), Grant) == is_empty
    assert isinstance(front.show(token, version=VERSION, anonymous=True), Denial)


def test_a_token_of_goims_client_may_be_quoted_or_not() -> None:
    front = with_secret()
    token = HS.token()
    for said in (token, b'"%b"' % token, b'"%b"' % token.replace(b"e", b"\\u0065")):
        assert front.show(said, version=1) == Grant("7", lifetime_ms=60_000)
    assert "no JWT" in reason(front.show(b'"%b"' % token))


# ---------------------------------------------------------------- tokens of an issuer


def test_a_token_of_the_issuer_is_its_user() -> None:
    front = with_secret()
    assert front.show(HS.token(zim={"rooms": ["a"]})) == Grant("7", ("a",), lifetime_ms=60_000)
    assert reason(front.show(HS.token(exp=NOW - 60)), "expired") == "the token expired 60 s ago"
    assert (front.desk.admitted, front.desk.denied["expired"]) == (1, 1)


@pytest.mark.parametrize("size", [TOKEN_BYTES + 1, 1 << 20])
def test_a_token_of_more_than_8_kib_is_not_looked_at(size: int) -> None:
    front = with_secret(BOTH)
    fill = HS.token(fill="x" * TOKEN_BYTES)
    for token in (b"x" * size, (fill + b"x" * size)[:size], b"\xff" * size):
        assert reason(front.show(token)) == f"the token has {size} bytes; right is at most 8192"
    assert front.requests == {}


@pytest.mark.parametrize(
    "token",
    [
        b"7",
        b"a.b.c",
        b"....",
        HS.token() + b".AAAA",
        HS.token().rpartition(b".")[0],
        HS.token()[:30] + b"!" + HS.token()[30:],
        b"\xff\xfe",
        compact(b"[", PAYLOAD, HS.sign),
    ],
)
def test_what_is_no_jwt_is_called_so(token: bytes) -> None:
    assert reason(with_secret().show(token)).startswith("the token is no JWT")


@pytest.mark.parametrize("claims", [{"iss": None}, {"iss": 7}, {"iss": [ISSUER]}, {"iss": ""}])
def test_a_token_without_an_issuer_is_told_what_it_lacks(claims: dict[str, Any]) -> None:
    assert "iss" in reason(with_secret().show(HS.token(**claims)))


def test_an_issuer_that_nobody_knows_is_named() -> None:
    token = HS.token(iss="https://evil.example.com/" + "x" * 500)
    text = reason(with_secret().show(token))
    assert text.startswith("the token's iss is 'https://evil.example.com/")
    assert text.endswith("which is not known")
    assert len(text) < 100


def test_each_issuer_has_keys_of_its_own() -> None:
    other = "https://other.example.com"
    keys = {ISSUER: [HS.key()], other: [TokenSigner("HS256", number=1).key()]}
    front = Front(FIXED, issuer(["HS256"], name=other), keys=keys)
    for number, name in ((0, ISSUER), (1, other)):
        signer, stranger = TokenSigner("HS256", number=number), TokenSigner("HS256", number=1 - number)
        assert isinstance(front.show(signer.token(iss=name)), Grant)
        assert "signature" in reason(front.show(stranger.token(iss=name)))


def test_an_issuer_takes_tokens_of_its_own_algorithms_alone() -> None:
    other = "https://other.example.com"
    front = Front(FIXED, issuer(["ES256"], URL, other), keys={ISSUER: [HS.key()]})
    front.tick()
    front.end_fetch(A)
    assert "signed by 'ES256'; right is HS256" in reason(front.show(A.token()))
    assert "signed by 'HS256'; right is ES256" in reason(front.show(HS.token(iss=other)))
    assert isinstance(front.show(A.token(iss=other)), Grant)


def test_an_issuers_token_is_never_shown_to_the_application() -> None:
    front = with_secret(BOTH)
    for token in (HS.token(exp=0), TokenSigner("HS256", number=1).token(), HS.token(header={"alg": "none"})):
        assert isinstance(front.show(token), Denial)
    assert front.requests == {}
    assert front.show(HS.token()) == Grant("7", lifetime_ms=60_000, asks=True)


def test_whatever_is_nested_however_deeply_has_an_answer() -> None:
    front = with_secret()
    for depth in range(900, 1_010):
        deep = b"[" * depth + b"]" * depth
        for token in (
            compact(b'{"alg":"HS256","x":' + deep + b"}", PAYLOAD, HS.sign),
            compact(b'{"alg":"HS256"}', json.dumps(PAYLOAD).encode()[:-1] + b',"aud":' + deep + b"}", HS.sign),
            b'"' + deep + b'"',
        ):
            assert front.show(token, version=1) is not None


# ---------------------------------------------------------------- keys by URL


def test_keys_are_fetched_at_the_start_and_those_who_come_before_wait() -> None:
    front = Front(FETCHED)
    front.tick()
    assert front.fetched == 1
    for asker in range(5):
        assert front.show(A.token(), asker) is None
    front.tick(1.0)
    front.end_fetch(A, B)
    assert [front.answer(asker) for asker in range(5)] == [Grant("7", lifetime_ms=59_000)] * 5
    assert front.show(B.token()) == Grant("7", lifetime_ms=59_000)
    assert front.fetched == 1


def test_who_comes_before_the_first_tick_has_them_fetched() -> None:
    front = Front(FETCHED)
    assert front.show(A.token()) is None
    front.tick()
    assert front.fetched == 1


def test_a_token_that_ends_while_it_waits_is_expired() -> None:
    front = Front(FETCHED)
    assert front.show(A.token(exp=NOW + 1)) is None
    front.now += 10
    front.end_fetch(A)
    assert reason(front.answer(), "expired") == "the token expired 9 s ago"


def test_a_key_that_comes_with_a_rotation_is_fetched_once_and_both_are_known() -> None:
    front = with_keys(A)
    front.tick(COOL_DOWN_S)
    for asker in range(3):
        assert front.show(B.token(), asker) is None
    assert front.show(A.token()) == Grant("7", lifetime_ms=50_000)  # the old one does not wait
    assert front.fetched == 1
    front.end_fetch(A, B)
    assert [front.answer(asker) for asker in range(3)] == [Grant("7", lifetime_ms=50_000)] * 3
    assert isinstance(front.show(A.token()), Grant)


def test_a_key_that_is_not_published_any_more_is_not_believed() -> None:
    front = with_keys(A)
    front.tick(COOL_DOWN_S)
    assert front.show(B.token(), "b") is None
    front.end_fetch(B)
    assert isinstance(front.answer("b"), Grant)
    assert "not known at the moment" in reason(front.show(A.token()), "try_again")
    front.tick(COOL_DOWN_S)
    assert front.show(A.token(), "a") is None
    front.end_fetch(B)
    assert reason(front.answer("a")) == "the token's kid is 'a', which its issuer does not have"


def test_a_key_that_is_not_there_is_looked_for_once_in_a_cool_down_and_then_remembered() -> None:
    front = with_keys(A)
    assert "try again" in reason(front.show(B.token()), "try_again")
    assert front.fetched == 0
    front.tick(COOL_DOWN_S)
    assert front.show(B.token()) is None
    front.end_fetch(A)
    assert reason(front.answer()) == "the token's kid is 'b', which its issuer does not have"
    for _ in range(3):
        assert reason(front.show(B.token())) == "the token's kid is 'b', which its issuer does not have"
        front.tick(2 * COOL_DOWN_S)
    assert front.fetched == 1
    front.tick(REFRESH_S)
    front.end_fetch(A, B)
    assert isinstance(front.show(B.token(exp=NOW + 1_000)), Grant)


def test_a_flood_of_random_names_fetches_once_in_a_cool_down_and_grows_no_memory() -> None:
    front = with_keys(A)
    front.tick(COOL_DOWN_S)
    payload = b64(json.dumps(PAYLOAD).encode())

    def flood(first: int, count: int) -> None:
        for number in range(first, first + count):
            header = b64(json.dumps({"alg": "ES256", "kid": f"{number:0200}"}).encode())
            found = front.show(header + b"." + payload + b".AAAA", asker=None)
            if front.fetches:
                front.end_fetch(A)
            if number % 50 == 0:
                front.tick(0.02)
            assert found is None or found.code in ("try_again", "refused")  # type: ignore[union-attr]
            front.answers.clear()

    flood(0, 2_000)
    assert front.fetched == 1
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        flood(2_000, 2_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert front.fetched == 1
    assert after - before < 20_000
    assert front.show(A.token()) == Grant("7", lifetime_ms=front_lifetime_ms(front))
    front.tick(COOL_DOWN_S)
    flood(4_000, 100)
    assert front.fetched == 2


def front_lifetime_ms(front: Front) -> int:
    """Of a token that holds for a minute from the start."""
    return int((NOW + 60 - front.wall_s) * 1000)


def test_the_last_good_set_serves_while_its_server_is_away() -> None:
    front = with_keys(A)
    for _ in range(5):
        front.tick(REFRESH_S)
        front.end_fetch(why="no answer within 5 s")
        assert isinstance(front.show(A.token(exp=NOW + 3_600)), Grant)
    assert front.notes[-1].event == "keys of an issuer not fetched"
    assert front.notes[-1].fields == {"issuer": ISSUER, "url": URL, "reason": "no answer within 5 s"}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "connection refused"),
        (b"<html>", "what it answers is no JSON object"),
        (b'{"keys":[]}', "what it answers has no key for ES256 among 0"),
        (key_set({"kty": "oct", "k": "AAAA"}), "what it answers has no key for ES256 among 1"),
        (key_set(A.private_jwk()), "what it answers has no key for ES256 among 1"),
    ],
    ids=["nothing", "HTML", "no keys", "a secret", "a private key"],  # keys are made anew by each process
)
def test_before_there_is_any_key_nobody_can_tell(document: bytes | None, words: str) -> None:
    front = Front(FETCHED)
    assert front.show(A.token()) is None
    front.end_fetch(document=document, why="connection refused")
    found = front.answer()
    assert reason(found, "try_again") == "the token's key is not known at the moment; try again"
    assert found.detail == f"the keys of {ISSUER} are not known: {words}"
    front.tick(5.0)
    assert front.show(A.token()) is None
    front.end_fetch(A)
    assert isinstance(front.answer(), Grant)


def test_a_failed_fetch_makes_no_key_unknown() -> None:
    front = with_keys(A)
    front.tick(COOL_DOWN_S)
    assert front.show(B.token()) is None
    front.end_fetch(why="away")
    assert reason(front.answer(), "try_again")
    front.tick(COOL_DOWN_S)
    assert front.show(B.token()) is None
    front.end_fetch(A, B)
    assert isinstance(front.answer(), Grant)


@pytest.mark.parametrize("kid", ["x" * (KID_BYTES + 1), "x" * 5_000, "é" * (KID_BYTES // 2 + 1)])
def test_a_long_name_of_a_key_is_not_looked_for(kid: str) -> None:
    front = with_keys(A)
    front.tick(COOL_DOWN_S)
    assert reason(front.show(TokenSigner("ES256", kid).token())) == "the token's kid is too long"
    assert front.fetched == 0


def test_a_token_without_a_name_of_a_key_is_tried_with_few_keys_and_not_with_many() -> None:
    signers = [TokenSigner("ES256", f"k{number}", number) for number in range(NAMELESS + 1)]
    nameless = TokenSigner("ES256", "", NAMELESS - 1).token()
    assert isinstance(with_keys(*signers[:NAMELESS]).show(nameless), Grant)
    front = with_keys(*signers)
    assert reason(front.show(nameless)) == "the token names no kid, and its issuer has many keys"
    assert front.fetched == 0


def test_what_its_header_says_is_refused_before_keys_are_fetched() -> None:
    front = Front(FETCHED)
    for fields in ({"alg": "none"}, {"jwk": A.jwk()}, {"jku": "https://evil.example.com"}, {"crit": ["exp"]}):
        assert isinstance(front.show(A.token(header=fields)), Denial)
    assert front.fetched == 0


def test_when_very_many_wait_for_keys_who_comes_is_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "WAITING", 3)
    front = Front(FETCHED)
    found = [front.show(A.token(), asker) for asker in range(5)]
    assert found[:3] == [None] * 3
    for denial in found[3:]:
        assert reason(denial, "try_again")
    front.end_fetch(A)
    assert [isinstance(front.answer(asker), Grant) for asker in range(3)] == [True] * 3
    assert front.answers == {}


def test_two_issuers_are_fetched_each_for_itself() -> None:
    other = "https://other.example.com"
    front = Front(FETCHED, issuer(["ES256"], "https://other.example.com/keys", other))
    assert front.show(A.token(), "a") is None
    assert front.show(A.token(iss=other), "b") is None
    assert [fetch.keys.issuer.issuer for fetch in front.fetches] == [ISSUER, other]
    front.end_fetch(A)
    assert isinstance(front.answer("a"), Grant)
    assert front.answers == {}
    front.end_fetch(B)
    assert reason(front.answer("b")) == "the token's kid is 'a', which its issuer does not have"


# ---------------------------------------------------------------- the application


def test_the_application_is_shown_what_nobody_else_knows() -> None:
    front = with_secret(BOTH)
    assert front.show(b"opaque", device="phone", address="192.0.2.9:77") is None
    [request] = front.requests.values()
    assert (request.url, request.timeout_s) == (CONNECT, 2.0)
    assert json.loads(request.body) == {"token": "opaque", "device": "phone", "address": "192.0.2.9:77"}
    front.reply({"user": "7"})
    assert front.answer() == Grant("7", asks=True)


def test_a_jwt_of_an_issuer_that_nobody_knows_is_the_applications() -> None:
    front = with_secret(BOTH)
    token = HS.token(iss="https://other.example.com")
    assert front.called(token, {"user": "7"}) == Grant("7", asks=True)


def test_a_quoted_token_is_shown_without_its_quotes() -> None:
    front = Front(callout=BOTH)
    assert front.show(b'"a\\u00e9"', version=1) is None
    [request] = front.requests.values()
    assert json.loads(request.body)["token"] == "aé"


def test_a_token_that_is_no_text_is_not_shown() -> None:
    front = Front(callout=BOTH)
    assert reason(front.show(b"\xff")) == "the token is no UTF-8"
    assert front.requests == {}


ALLOWED: list[tuple[Any, Grant]] = [
    ({"user": "7"}, Grant("7")),
    ({"user": 7}, Grant("7")),
    ({"user": -7}, Grant("-7")),
    ({"user": "7", "expires_s": 60}, Grant("7", lifetime_ms=60_000)),
    ({"user": "7", "expires_s": None}, Grant("7")),
    ({"user": "7", "expires_s": 0.0001}, Grant("7", lifetime_ms=1)),
    ({"user": "7", "expires_s": 1e300}, Grant("7", lifetime_ms=int(LIFETIME_S * 1000))),
    ({"user": "7", "cache_s": CACHE_S}, Grant("7")),
    ({"user": "7", "reason": ""}, Grant("7")),
    (
        {"user": "7", "rooms": ["a", "b", "a"], "join": ["c-*"], "read": ["r:*"], "device": "phone"},
        Grant("7", ("a", "b"), ("c-*",), ("r:*",), "phone"),
    ),
    (b' {"user":"8","user":"7"}\n', Grant("7")),
]


@pytest.mark.parametrize(("body", "grant"), ALLOWED)
def test_what_the_application_allows(body: Any, grant: Grant) -> None:
    assert Front(callout=Callout(CONNECT)).called(b"x", body) == grant


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, {"reason": "banned"}, "banned"),
        (200, {"user": "7", "reason": "banned"}, "banned"),
        (401, {"reason": "banned"}, "banned"),
        (403, {"reason": "banned", "cache_s": 60}, "banned"),
        (401, {}, "not allowed"),
        (401, b"", "not allowed"),
        (403, b"<html>Forbidden</html>", "not allowed"),
        (403, {"error": "Forbidden"}, "not allowed"),
        (403, {"reason": 7}, "not allowed"),
        (403, [], "not allowed"),
        (403, b"\xff", "not allowed"),
        (401, {"user": "7", "rooms": ["a"]}, "not allowed"),
        (403, b"[" * 100_000, "not allowed"),
    ],
)
def test_what_the_application_refuses(status: int, body: Any, why: str) -> None:
    assert reason(Front(callout=BOTH).called(b"x", body, status)) == why


LIES: list[tuple[int, Any, str]] = [
    (500, {"user": "7"}, "it answers with status 500"),
    (503, b"", "it answers with status 503"),
    (404, {"user": "7"}, "it answers with status 404"),
    (302, {"user": "7"}, "it answers with status 302"),
    (201, {"user": "7"}, "it answers with status 201"),
    (204, b"", "it answers with status 204"),
    (400, {"reason": "banned"}, "it answers with status 400"),
    (200, b"", "what is not understood"),
    (200, b"ok", "what is not understood"),
    (200, b"<html>", "what is not understood"),
    (200, b'{"user":"7"}{"user":"8"}', "what is not understood"),
    (200, b'{"user":"\xff"}', "what is not understood"),
    (200, b'{"user":"\\ud800"}', "what is not understood"),
    (200, b"[" * 100_000, "what is not understood"),
    (200, b'{"user":' + b"[" * 100_000, "what is not understood"),
    (200, [], "what is not understood"),
    (200, None, "what is not understood"),
    (200, "7", "what is not understood"),
    (200, {}, 'neither "user" nor "reason"'),
    (200, {"user": None}, 'neither "user" nor "reason"'),
    (200, {"rooms": ["a"]}, 'neither "user" nor "reason"'),
    (200, {"user": "7", "usr": 1}, "no field is called 'usr'; there are "),
    (200, {"user": "7", "token": "x"}, "no field is called 'token'"),
    (200, {"user": "7", "x" * 100_000: 1}, "no field is called 'xxx"),
    (200, {"user": True}, "user"),
    (200, {"user": 7.5}, "user"),
    (200, {"user": ["7"]}, "user"),
    (200, {"user": ""}, "nobody can be called ''"),
    (200, {"user": "7\n"}, r"nobody can be called '7\n'"),
    (200, {"user": "x" * (NAME_BYTES + 1)}, "nobody can be called"),
    (200, {"user": 10**300}, "nobody can be called"),
    (200, b'{"user":%b}' % (b"9" * 5_000), "what is not understood"),
    (200, {"user": "7", "reason": None}, "reason"),
    (200, {"user": "7", "rooms": "lobby"}, "rooms"),
    (200, {"user": "7", "rooms": [7]}, "rooms"),
    (200, {"user": "7", "rooms": ["*"]}, "no room can be called '*'"),
    (200, {"user": "7", "rooms": [str(n) for n in range(ROOMS + 1)]}, "1001 rooms; right is at most 1000"),
    (200, {"user": "7", "join": ["a"] * (PATTERNS + 1)}, "101 patterns; right is at most 100"),
    (200, {"user": "7", "read": ["\0"]}, "is no pattern"),
    (200, {"user": "7", "device": "\0"}, "is no class of devices"),
    (200, {"user": "7", "expires_s": 0}, "expires_s"),
    (200, {"user": "7", "expires_s": -1}, "expires_s"),
    (200, {"user": "7", "expires_s": "60"}, "expires_s"),
    (200, {"user": "7", "expires_s": True}, "expires_s"),
    (200, {"user": "7", "expires_s": 10**400}, "expires_s"),
    (200, {"user": "7", "expires_s": float("nan")}, "what is not understood"),
    (200, {"user": "7", "expires_s": float("inf")}, "what is not understood"),
    (200, b'{"user":"7","expires_s":1e999}', "what is not understood"),
    (200, {"user": "7", "cache_s": -1}, "cache_s"),
    (200, {"user": "7", "cache_s": CACHE_S + 1}, "cache_s"),
    (200, {"user": "7", "cache_s": None}, "cache_s"),
]


@pytest.mark.parametrize(("status", "body", "words"), LIES)
def test_what_is_no_answer_is_said_to_the_log_and_the_client_is_to_try_again(
    status: int, body: Any, words: str
) -> None:
    front = Front(callout=BOTH)
    found = front.called(b"x", body, status)
    assert reason(found, "try_again") == "nobody can tell at the moment; try again"
    assert found.detail.startswith("callout: it answers")
    assert words in found.detail
    assert len(found.detail) < 400
    assert front.show(b"x") is None  # nothing of it is kept


def test_a_slow_application_is_no_reason_to_let_anybody_in() -> None:
    front = Front(callout=BOTH)
    assert front.show(b"x") is None
    front.end_request(("connect", 1), "no answer within 2 s")
    found = front.answer()
    assert reason(found, "try_again")
    assert found.detail == "callout: no answer within 2 s"


def test_an_answer_as_large_as_it_may_be() -> None:
    rooms = [f"{n:0250}" for n in range(ROOMS)]
    found = Front(callout=BOTH).called(b"x", {"user": "7", "rooms": rooms})
    assert isinstance(found, Grant)
    assert len(found.rooms) == ROOMS


@pytest.mark.parametrize("status", [200, 403])
def test_a_long_reason_is_cut(status: int) -> None:
    """It stands in the words at the end of a connection, and once for each room that is refused."""
    found = Front(callout=BOTH).called(b"x", {"reason": "banned " * 30_000}, status)
    assert len(found.reason) < 4_096
    front = Front(callout=BOTH)
    assert front.ask(("a",)) is None
    front.reply({"reason": "banned " * 30_000}, status)
    assert len(front.answer().reason) < 4_096


def test_an_answer_is_kept_and_what_is_left_of_its_time_shrinks() -> None:
    front = Front(callout=Callout(CONNECT))
    assert front.called(b"x", {"user": "7", "expires_s": 60, "cache_s": 3_600}) == Grant("7", lifetime_ms=60_000)
    for seconds, left in ((0.0, 60_000), (30.0, 30_000), (29.5, 500)):
        front.tick(seconds)
        assert front.show(b"x") == Grant("7", lifetime_ms=left)
    front.tick(0.5)
    assert front.show(b"x") is None  # never longer than it holds
    assert front.desk.connect.results["cached"] == 3


def test_an_answer_without_an_end_is_kept_as_it_is() -> None:
    front = Front(callout=Callout(CONNECT))
    front.called(b"x", {"user": "7", "cache_s": 60})
    front.tick(59.0)
    assert front.show(b"x") == Grant("7")
    front.tick(1.0)
    assert front.show(b"x") is None


@pytest.mark.parametrize("status", [200, 401])
def test_a_refusal_is_kept_if_it_says_so(status: int) -> None:
    front = Front(callout=BOTH)
    front.called(b"x", {"reason": "banned", "cache_s": 60}, status)
    assert reason(front.show(b"x")) == "banned"
    assert front.called(b"y", {"user": "8"}) == Grant("8", asks=True)
    front.tick(60.0)
    assert front.show(b"x") is None


def test_an_answer_is_for_this_token_on_this_device_alone() -> None:
    front = Front(callout=BOTH)
    front.called(b"x", {"user": "7", "cache_s": 60})
    assert front.show(b"x", device="phone") is None
    assert front.show(b"X") is None
    assert front.show(b"x ") is None


def test_the_same_token_at_the_same_time_is_asked_about_once() -> None:
    front = Front(callout=BOTH)
    for asker in range(20):
        assert front.show(b"x", asker) is None
    assert len(front.requests) == 1
    front.reply({"user": "7"})
    assert [front.answer(asker) for asker in range(20)] == [Grant("7", asks=True)] * 20


def test_so_many_tokens_are_asked_about_at_once() -> None:
    front = Front(callout=Callout(CONNECT, JOIN, max_requests=3))
    for number in range(10):
        assert front.show(b"%d" % number, number) is None
        assert front.ask((str(number),), f"room {number}") is None
    assert sorted(front.requests) == [(name, number) for name in ("connect", "join") for number in (1, 2, 3)]
    while front.requests:
        front.reply({"reason": "no"})
        assert len([name for name, _ in front.requests if name == "connect"]) <= 3
    assert len(front.answers) == 20


def test_while_the_application_does_not_answer_who_comes_is_told_at_once() -> None:
    front = with_secret(BOTH)
    for number in range(FAILURES):
        assert reason(front.called(b"%d" % number, b"", 500), "try_again")
    found = front.show(b"x")
    assert reason(found, "try_again")
    assert isinstance(found, Denial)
    assert found.detail == "callout: the circuit is open"
    assert isinstance(front.show(HS.token()), Grant)  # issuers can tell
    front.tick(OPEN_S)
    assert front.called(b"x", {"user": "7"}) == Grant("7", asks=True)
    assert front.ask(("a",)) is None  # the other question has a circuit of its own


def test_who_waits_for_a_turn_for_too_long_is_to_try_again() -> None:
    front = Front(callout=Callout(CONNECT, max_requests=1))
    front.show(b"x", "x")
    front.show(b"y", "y")
    front.tick(2.1)
    assert reason(front.answer("y"), "try_again")
    assert front.answers == {}


@given(st.binary(max_size=60) | (SOMEBODY | JSON).map(lambda value: json.dumps(value).encode()), st.integers(100, 599))
@example(b'{"user":"7","expires_s":1e-320}', 200)
@example(b'{"user":"7","cache_s":1e-320,"expires_s":1e-320}', 200)
def test_any_answer_is_a_grant_a_denial_or_none(body: bytes, status: int) -> None:
    front = Front(callout=BOTH)
    found = front.called(b"x", body, status)
    if isinstance(found, Grant):
        assert grant_problem(found) == ""
        assert 0 <= found.lifetime_ms <= LIFETIME_S * 1000
        assert status == 200
    else:
        assert found.code in ("refused", "try_again")
    assert front.notes == [] or isinstance(found, Denial)


# ---------------------------------------------------------------- rooms


def test_rooms_are_asked_about_together() -> None:
    front = Front(callout=BOTH)
    assert front.ask(("a", "b"), device="phone") is None
    [request] = front.requests.values()
    assert request.url == JOIN
    assert json.loads(request.body) == {"user": "7", "device": "phone", "rooms": ["a", "b"]}
    front.reply({"rooms": ["b"], "reason": "not a member"})
    found = front.answer()
    assert (found.rooms, found.reason) == (("b",), "not a member")


def test_rooms_that_were_not_asked_about_are_not_allowed() -> None:
    front = Front(callout=BOTH)
    assert front.ask(("a", "b")) is None
    front.reply({"rooms": ["b", "c", "*", "b", ""]})
    assert front.answer().rooms == ("b",)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, {}, ""),
        (200, {"rooms": [], "reason": "closed"}, "closed"),
        (401, {}, ""),
        (403, {"reason": "closed"}, "closed"),
        (403, {"rooms": ["a"], "reason": "closed"}, "closed"),
        (403, b"<html>", ""),
        (500, {"rooms": ["a"]}, "nobody can tell at the moment; try again"),
        (302, {"rooms": ["a"]}, "nobody can tell at the moment; try again"),
        (404, {"rooms": ["a"]}, "nobody can tell at the moment; try again"),
        (200, {"rooms": "a"}, "nobody can tell at the moment; try again"),
        (200, {"rooms": ["a"], "user": "7"}, "nobody can tell at the moment; try again"),
        (200, {"rooms": ["a"], "cache_s": -1}, "nobody can tell at the moment; try again"),
        (200, b"", "nobody can tell at the moment; try again"),
        (200, ["a"], "nobody can tell at the moment; try again"),
    ],
)
def test_rooms_that_are_not_allowed(status: int, body: Any, why: str) -> None:
    front = Front(callout=BOTH)
    assert front.ask(("a",)) is None
    front.reply(body, status)
    found = front.answer()
    assert (found.rooms, found.reason) == ((), why)


def test_an_answer_about_rooms_is_for_this_user_and_these_rooms() -> None:
    front = Front(callout=BOTH)
    assert front.ask(("a", "b")) is None
    front.reply({"rooms": ["a"], "cache_s": 60})
    front.answer()
    found = front.ask(("a", "b"))
    assert found is not None
    assert found.rooms == ("a",)
    assert front.ask(("a", "b"), user="8") is None
    assert front.ask(("a", "b"), device="phone") is None
    assert front.ask(("b",)) is None
    front.tick(60.0)
    assert front.ask(("a", "b")) is None


def test_where_nobody_is_to_be_asked_about_rooms_none_is_allowed() -> None:
    for front in (Front(), with_secret(), Front(callout=Callout(CONNECT))):
        found = front.ask(("a",))
        assert found is not None
        assert found.rooms == ()


@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries({}, optional={"rooms": st.lists(st.sampled_from("abc")) | JSON, "x": JSON}).map(
        lambda value: json.dumps(value).encode()
    ),
    st.integers(100, 599),
)
def test_any_answer_about_rooms_allows_some_of_those_that_were_asked_about(body: bytes, status: int) -> None:
    front = Front(callout=BOTH)
    assert front.ask(("a", "b")) is None
    front.reply(body, status)
    found = front.answer()
    assert isinstance(found, MayJoin)
    assert set(found.rooms) <= {"a", "b"}
    assert status == 200 or not found.rooms


# ---------------------------------------------------------------- whatever comes

TOKENS = (
    st.binary(max_size=60)
    | st.text(max_size=20).map(lambda text: json.dumps(text).encode())
    | st.integers().map(lambda number: b"%d" % number)
    | st.lists(st.binary(max_size=30).map(b64), min_size=2, max_size=4).map(b".".join)
    | st.sampled_from([A, B, HS]).map(lambda signer: signer.token())
    | st.tuples(st.sampled_from([A, HS]), st.dictionaries(st.sampled_from(["sub", "aud", "zim", "exp"]), JSON)).map(
        lambda made: made[0].token(**made[1])
    )
)
FRONTS = {
    "nothing": Front,
    "anonymous": lambda: Front(anonymous=Anonymous()),
    "a secret": with_secret,
    "keys": lambda: with_keys(A),
    "keys to be fetched": lambda: Front(FETCHED),
    "an application": lambda: Front(callout=BOTH),
    "all": lambda: Front(FETCHED, callout=BOTH, anonymous=Anonymous(("lobby",))),
}


@pytest.mark.parametrize("make", FRONTS.values(), ids=FRONTS)
@given(TOKENS, st.sampled_from([0, 1, 2, VERSION, 7]), st.booleans())
@example(b"[" * 100_000, 1, True)
@example(b'"\\ud800"', 1, True)
@example(b'"' + b"x" * TOKEN_BYTES + b'"', 1, True)
def test_any_token_has_an_answer(make: Any, token: bytes, version: int, anonymous: bool) -> None:
    front: Front = make()
    found = front.show(token, version=version, anonymous=anonymous)
    if found is None:
        if front.fetches:
            front.end_fetch(A)
        else:
            front.reply({"user": "7"})
        found = front.answer()
    if isinstance(found, Grant):
        assert grant_problem(found) == ""
    else:
        assert found.reason.isprintable()
        assert len(found.reason) < 300


class Somebody:
    """Who asks; an object, to see that nobody keeps it."""


class AnyOrder(RuleBasedStateMachine):
    """Tokens, keys, answers of the application, failures and time, in any order."""

    tokens = (A.token(), B.token(), C.token(), A.token(exp=0), b"x", b"y", b"z", b"")

    def __init__(self) -> None:
        super().__init__()
        self.front = Front(FETCHED, callout=Callout(CONNECT, JOIN, max_requests=2))
        self.waiting: dict[Somebody, str] = {}
        self.seen: list[weakref.ref[Somebody]] = []

    def _ask(self, what: str, ask: Any) -> None:
        somebody = Somebody()
        self.seen.append(weakref.ref(somebody))
        if ask(somebody) is None:
            self.waiting[somebody] = what
        self._hear()

    def _hear(self) -> None:
        for somebody, found in self.front.answers.items():
            what = self.waiting.pop(somebody)
            assert [isinstance(m, MayJoin) for m in found] == [what == "rooms"]
        self.front.answers.clear()

    @rule(token=st.sampled_from(tokens))
    def a_client_comes(self, token: bytes) -> None:
        self._ask("token", lambda somebody: self.front.show(token, somebody))

    @rule(rooms=st.sampled_from([("a",), ("b",), ("a", "b"), ()]))
    def a_client_asks_for_rooms(self, rooms: tuple[str, ...]) -> None:
        self._ask("rooms", lambda somebody: self.front.ask(rooms, somebody))

    @rule(seconds=st.sampled_from([0.02, 1.0, 2.5, 10.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.front.tick(seconds)
        self._hear()

    @precondition(lambda self: self.front.fetches)
    @rule(signers=st.sampled_from([(A,), (B,), (A, B), ()]))
    def a_fetch_ends(self, signers: tuple[TokenSigner, ...]) -> None:
        self.front.end_fetch(*signers, why="away")
        self._hear()

    @precondition(lambda self: self.front.requests)
    @rule(
        data=st.data(),
        reply=st.sampled_from(
            [
                "no answer within 2 s",
                Reply(500, b""),
                Reply(403, b""),
                Reply(200, b'{"user":"7","cache_s":5}'),
                Reply(200, b'{"user":"7"}'),
                Reply(200, b'{"rooms":["a"],"cache_s":5}'),
                Reply(200, b"{}"),
            ]
        ),
    )
    def a_request_ends(self, data: st.DataObject, reply: Reply | str) -> None:
        self.front.end_request(data.draw(st.sampled_from(sorted(self.front.requests))), reply)
        self._hear()

    @invariant()
    def not_too_much_is_under_way(self) -> None:
        assert len(self.front.fetches) <= 1
        for name in ("connect", "join"):
            assert len([at for at in self.front.requests if at[0] == name]) <= 2

    @invariant()
    def who_waits_waits_for_something(self) -> None:
        assert not self.waiting or self.front.fetches or self.front.requests

    def teardown(self) -> None:
        """All that is under way ends. Then everybody has an answer, and nobody is kept."""
        while self.front.fetches:
            self.a_fetch_ends_at_last()
        while self.front.requests:
            self.front.end_request(next(iter(self.front.requests)), "no answer within 2 s")
            self._hear()
        assert self.waiting == {}
        gc.collect()
        assert [ref for ref in self.seen if ref() is not None] == []

    def a_fetch_ends_at_last(self) -> None:
        self.front.end_fetch(A)
        self._hear()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=30)


# ---------------------------------------------------------------- another topology


def test_a_secret_that_is_replaced_is_not_known_any_more() -> None:
    front, other = with_secret(), TokenSigner("HS256", number=1)
    assert isinstance(front.show(HS.token()), Grant)
    front.desk.follow(Identity((FIXED,)), {ISSUER: [other.key()]})
    assert reason(front.show(HS.token()))
    assert isinstance(front.show(other.token()), Grant)


def test_keys_that_were_fetched_stay_where_their_url_is_the_same_and_are_fetched_anew() -> None:
    front = with_keys(A)
    front.desk.follow(Identity((replace(FETCHED, leeway_s=7.0),)), {})
    assert isinstance(front.show(A.token(exp=NOW - 6)), Grant)
    assert front.fetched == 0
    front.tick()
    assert front.fetched == 1
    front.end_fetch(B)
    assert isinstance(front.show(B.token()), Grant)
    front.tick(COOL_DOWN_S)
    assert front.fetched == 1


@pytest.mark.parametrize("change", [{"jwks": "https://auth.example.com/others"}, {"ca": Path("/ca.pem")}])
def test_keys_of_another_url_are_fetched_and_who_waited_for_the_former_is_to_come_again(change: dict[str, Any]) -> None:
    front = with_keys(A)
    front.tick(COOL_DOWN_S)
    assert front.show(B.token(), "b") is None
    front.desk.follow(Identity((replace(FETCHED, **change),)), {})
    front.tick()
    assert front.fetched == 2
    assert front.show(A.token(), "a") is None
    front.end_fetch(A, B)  # what the former URL says does not count
    assert reason(front.answer("b"), "try_again")
    front.tick(COOL_DOWN_S)
    assert front.show(A.token(), "later") is None
    front.end_fetch(A)
    assert isinstance(front.answer("later"), Grant)


def test_an_issuer_that_is_taken_away_lets_nobody_wait_for_ever() -> None:
    front = Front(FETCHED)
    assert front.show(A.token()) is None
    front.tick()
    front.desk.follow(Identity((), BOTH), {})
    front.end_fetch(A)
    assert reason(front.answer(), "try_again")
    assert front.called(A.token(), {"reason": "no"}) == Denial("refused", "no")  # it is the application's now


def test_another_application_is_asked_and_the_former_may_still_answer() -> None:
    front = Front(callout=Callout(CONNECT))
    assert front.called(b"kept", {"user": "7", "cache_s": 60}) == Grant("7", lifetime_ms=0)
    assert front.show(b"x", "x") is None
    front.desk.follow(Identity((), Callout(CONNECT)), {})
    assert isinstance(front.show(b"kept"), Grant)  # nothing has changed about it
    front.desk.follow(Identity((), Callout(JOIN)), {})
    front.reply({"user": "9"})
    assert front.answer("x") == Grant("9")
    for number, token in enumerate((b"kept", b"y")):
        assert front.show(token, number) is None
        [request] = front.requests.values()
        assert request.url == JOIN
        front.reply({"user": "8"})
        assert front.answer(number) == Grant("8")


def test_who_comes_too_often_is_held_off_whoever_knows_the_user() -> None:
    """By the application's answer, now or from memory; a refresh is not a login."""
    front = Front(callout=Callout(CONNECT))
    front.desk.often.follow(Rate(0.1, 2))
    assert front.show(b"a") is None
    front.reply({"user": "7", "cache_s": 60})
    assert front.answers.pop("client") == [Grant("7")]
    assert front.show(b"a") == Grant("7")
    held = Denial("try_again", "come back in 10 s", "user 7", 10_001)
    assert front.show(b"a") == held
    assert front.show(b"b") is None
    front.reply({"user": "7"})
    assert front.answers["client"] == [held]
    refresh = Auth(99, b"a", VERSION, "192.0.2.1:5", is_refresh=True)
    again = front.desk.log_in("client", refresh, front.now, front.wall_s, [])
    assert again is not None
    assert again.grant == Grant("7")
    assert (front.desk.admitted, front.desk.denied["try_again"]) == (3, 2)
    front.now += 10
    assert front.show(b"a") == Grant("7")


def test_tokens_that_are_nobodys_cost_no_login() -> None:
    front = Front(callout=Callout(CONNECT))
    front.desk.often.follow(Rate(0.1, 1))
    for n in range(3):
        assert front.show(b"%d" % n) is None
        front.reply({"reason": "no"})
    assert front.show(b"a") is None
    front.reply({"user": "7"})
    assert front.answers["client"][-1] == Grant("7")

"""The keys of one issuer: when they are fetched, what stays while their server is away, what is not asked again."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.identity.signers import TokenSigner, issuer, key_set
from zim.identity.keys import Key
from zim.nodes.logic.keysets import COOL_DOWN_S, MOST_RETRY_S, NAMELESS, REFRESH_S, RETRY_S, UNKNOWN, KeySet

URL = "https://auth.example.com/keys"
A, B = TokenSigner("ES256", "a"), TokenSigner("ES256", "b", 1)
BAD = (
    None,
    b"",
    b"{}",
    b'{"keys":[]}',
    b'{"keys":[{"kty":"oct","k":"AAAA"}]}',
    key_set(TokenSigner("RS256", "c").jwk()),
)


def fetched(*signers: TokenSigner, now: float = 0.0) -> KeySet:
    """One that has just fetched the keys of these."""
    keys = KeySet(issuer(["ES256"], URL))
    assert keys.must_fetch(now)
    keys.on_fetched(key_set(*(signer.jwk() for signer in signers)), "", now)
    return keys


def kids(keys: KeySet) -> list[str]:
    return [key.kid for key in keys.keys]


# ---------------------------------------------------------------- when a set is fetched


def test_a_set_is_fetched_at_the_start_and_again_after_a_while() -> None:
    keys = KeySet(issuer(["ES256"], URL))
    assert (keys.must_fetch(0.0), keys.is_fetching, keys.fetched_at) == (True, True, None)
    assert not keys.must_fetch(1.0)
    keys.on_fetched(key_set(A.jwk()), "", 2.0)
    assert (kids(keys), keys.is_fetching, keys.fetched_at, keys.results) == (["a"], False, 2.0, {"ok": 1, "failed": 0})
    assert not keys.must_fetch(1.9 + REFRESH_S)
    assert keys.must_fetch(2.0 + REFRESH_S)


def test_keys_that_the_topology_names_are_not_fetched() -> None:
    fixed = [A.key()._replace(kid=""), B.key()._replace(kid="")]
    keys = KeySet(issuer(["ES256"]), fixed)
    assert not keys.must_fetch(1e9)
    assert not keys.fetch_for("x", 1e9)
    assert list(keys.candidates("x")) == list(keys.candidates("")) == fixed


def test_a_new_set_takes_the_place_of_the_old_one() -> None:
    """A key that is not published any more is not the issuer's any more."""
    keys = fetched(A)
    for at, signers in ((REFRESH_S, (A, B)), (2 * REFRESH_S, (B,))):
        assert keys.must_fetch(at)
        keys.on_fetched(key_set(*(signer.jwk() for signer in signers)), "", at)
        assert kids(keys) == [signer.kid for signer in signers]


@pytest.mark.parametrize("document", BAD, ids=range(len(BAD)))
def test_the_last_good_set_stays_while_its_server_is_away_or_says_nonsense(document: bytes | None) -> None:
    keys = fetched(A)
    assert keys.must_fetch(REFRESH_S)
    keys.on_fetched(document, "no answer within 5 s", REFRESH_S + 1)
    assert (kids(keys), keys.fetched_at, keys.results) == (["a"], 0.0, {"ok": 1, "failed": 1})
    assert keys.why.startswith("no answer within 5 s" if document is None else "what it answers ")
    assert keys.must_fetch(REFRESH_S + 1 + RETRY_S)
    keys.on_fetched(key_set(B.jwk()), "", REFRESH_S + 3)
    assert (kids(keys), keys.why) == (["b"], "")


def test_a_server_that_is_away_is_asked_less_and_less_often() -> None:
    keys, begun = KeySet(issuer(["ES256"], URL)), []
    for half in range(2 * 400):
        if keys.must_fetch(half / 2):
            begun.append(half / 2)
            keys.on_fetched(None, "connection refused", half / 2)
    assert [later - at for at, later in pairwise(begun)] == [1, 2, 4, 8, 16, 32, *[MOST_RETRY_S] * 5]
    assert keys.must_fetch(500.0)
    keys.on_fetched(key_set(A.jwk()), "", 500.0)
    assert keys.must_fetch(500.0 + REFRESH_S)
    keys.on_fetched(None, "connection refused", 500.0 + REFRESH_S)
    assert keys.must_fetch(500.0 + REFRESH_S + RETRY_S)


# ---------------------------------------------------------------- keys that are not there


def test_a_key_that_is_not_there_lets_the_set_be_fetched_once_in_a_cool_down() -> None:
    keys = fetched(A)
    assert not keys.fetch_for("b", COOL_DOWN_S - 0.1)
    assert not keys.must_fetch(COOL_DOWN_S - 0.1)
    assert keys.fetch_for("b", COOL_DOWN_S)
    assert keys.must_fetch(COOL_DOWN_S)
    assert keys.fetch_for("b", COOL_DOWN_S + 1)  # it is under way
    assert not keys.must_fetch(COOL_DOWN_S + 1)
    keys.on_fetched(key_set(A.jwk(), B.jwk()), "", COOL_DOWN_S + 2)
    assert [key.kid for key in keys.candidates("b")] == ["b"]
    assert not keys.fetch_for("c", 2 * COOL_DOWN_S - 0.1)
    assert keys.fetch_for("c", 2 * COOL_DOWN_S)


def test_a_key_that_was_looked_for_is_remembered_as_unknown_until_the_next_fetch() -> None:
    keys = fetched(A)
    keys.remember_unknown("b")
    assert keys.is_known_as_unknown("b")
    assert not keys.fetch_for("b", COOL_DOWN_S)
    assert not keys.must_fetch(COOL_DOWN_S)
    assert keys.must_fetch(REFRESH_S)
    keys.on_fetched(key_set(A.jwk(), B.jwk()), "", REFRESH_S)
    assert not keys.is_known_as_unknown("b")
    assert keys.candidates("b")


def test_a_fetch_that_failed_forgets_nothing() -> None:
    keys = fetched(A)
    keys.remember_unknown("b")
    assert keys.must_fetch(REFRESH_S)
    keys.on_fetched(None, "away", REFRESH_S)
    assert keys.is_known_as_unknown("b")


def test_while_its_server_is_away_tokens_do_not_have_it_asked_more_often_than_that() -> None:
    keys = KeySet(issuer(["ES256"], URL))
    begun = []
    for tenth in range(10 * 300):
        now = tenth / 10
        keys.fetch_for(f"kid-{tenth}", now)
        if keys.must_fetch(now):
            begun.append(now)
            keys.on_fetched(None, "away", now)
    early = [1.0, 3.0, 7.0]  # that it would be asked at anyway
    assert len([at for at in begun if at >= 10]) <= 300 / COOL_DOWN_S
    assert [at for at in begun if 0 < at < 10] == early


def test_a_flood_of_names_grows_no_memory() -> None:
    keys = fetched(A)

    def flood(first: int, count: int) -> int:
        begun = 0
        for number in range(first, first + count):
            kid = f"{number:0255}"
            assert not keys.candidates(kid)
            if keys.fetch_for(kid, 20.0) and keys.must_fetch(20.0):
                begun += 1
                keys.on_fetched(key_set(A.jwk()), "", 20.0)
            keys.remember_unknown(kid)
        return begun

    assert flood(0, 2 * UNKNOWN) == 1
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert flood(2 * UNKNOWN, 5 * UNKNOWN) == 0
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 32_768  # of some 500,000, were they kept


# ---------------------------------------------------------------- which keys a token is tried with


def test_a_token_that_names_a_key_is_tried_with_that_one_alone() -> None:
    keys = fetched(A, B)
    assert [key.kid for key in keys.candidates("b")] == ["b"]
    assert list(keys.candidates("c")) == []


def test_two_keys_of_one_name_are_both_tried() -> None:
    keys = fetched(A, TokenSigner("ES256", "a", 1))
    assert len(keys.candidates("a")) == 2


def test_a_token_that_names_none_is_tried_with_few_keys_and_not_with_many() -> None:
    signers = [TokenSigner("ES256", f"k{number}") for number in range(NAMELESS + 1)]
    assert len(fetched(*signers[:NAMELESS]).candidates("")) == NAMELESS
    assert len(fetched(*signers).candidates("")) == 0


# ---------------------------------------------------------------- whatever happens


class AnyOrder(RuleBasedStateMachine):
    """Ticks, tokens, answers and failures, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = KeySet(issuer(["ES256"], URL))
        self.now = 0.0
        self.begun_at: float | None = None
        self.was_ok = False
        self.last: list[Key] = []

    def _began(self) -> None:
        if self.begun_at is not None:
            wait_s = COOL_DOWN_S if self.was_ok else RETRY_S
            assert self.now - self.begun_at >= wait_s - 1e-6  # sums of seconds are rounded
        self.begun_at = self.now

    @rule(seconds=st.sampled_from([0.02, 0.5, 1.0, 9.0, 10.0, 60.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def tick(self) -> None:
        was = self.keys.is_fetching
        if self.keys.must_fetch(self.now):
            assert not was
            self._began()

    @rule(kid=st.sampled_from(["a", "b", "c", "", "x" * 255]))
    def a_token_comes(self, kid: str) -> None:
        if self.keys.candidates(kid) or not self.keys.fetch_for(kid, self.now):
            return
        was = self.keys.is_fetching
        assert self.keys.must_fetch(self.now) == (not was)
        if not was:
            self._began()
        assert self.keys.is_fetching

    @precondition(lambda self: self.keys.is_fetching)
    @rule(document=st.sampled_from([key_set(A.jwk()), key_set(B.jwk()), key_set(A.jwk(), B.jwk()), *BAD]))
    def a_fetch_ends(self, document: bytes | None) -> None:
        before = dict(self.keys.results)
        self.keys.on_fetched(document, "away", self.now)
        self.was_ok = self.keys.results["ok"] > before["ok"]
        assert sum(self.keys.results.values()) == sum(before.values()) + 1
        assert self.was_ok == (document not in BAD)
        assert bool(self.keys.why) == (not self.was_ok)
        if self.was_ok:
            self.last = list(self.keys.keys)
        for kid in ("a", "b", "c"):
            if self.was_ok and not self.keys.candidates(kid):
                self.keys.remember_unknown(kid)

    @invariant()
    def the_last_good_set_is_there(self) -> None:
        assert list(self.keys.keys) == self.last
        assert (self.keys.fetched_at is None) == (not self.last)

    @invariant()
    def no_key_is_both_there_and_unknown(self) -> None:
        assert not any(self.keys.is_known_as_unknown(kid) for kid in kids(self.keys))

    def teardown(self) -> None:
        """Sooner or later it is fetched again."""
        if self.keys.is_fetching:
            self.keys.on_fetched(None, "away", self.now)
        assert self.keys.must_fetch(self.now + REFRESH_S)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40)

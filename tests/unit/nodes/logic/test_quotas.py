"""How much an API key may push, and how often a user may log in."""

from __future__ import annotations

import pytest

from zim.fabric.buckets import Rate
from zim.fabric.ceilings import NO_CEILINGS, Ceilings
from zim.fabric.grants import ANONYMOUS, Denial, Grant
from zim.fabric.principals import ApiKey
from zim.fabric.push import Part, Published, Refusal
from zim.nodes.logic.logging_in import LoginLimit
from zim.nodes.logic.quotas import Quotas
from zim.nodes.logic.shares import Share, published
from zim.protocol.publication import Outcome, Publication

ACME, BETA = ApiKey("acme", ("0",), {}), ApiKey("beta", ("1",), {}, pushes=Rate(1, 4), bytes=Rate(1, 100))
LIMITS = Ceilings(pushes_per_key=Rate(1, 2), bytes_per_key=Rate(1, 50))


def quotas(limits: Ceilings = LIMITS, *keys: ApiKey, logics: int = 1) -> Quotas:
    found = Quotas()
    found.follow(limits, keys, logics)
    return found


def let_through(of: Quotas, who: str, size: int = 1, now: float = 0.0) -> int:
    """How many pushes in a row."""
    return next(n for n in range(100) if of.ask(who, size, now) is not None)


def test_each_key_has_what_all_have_or_its_own() -> None:
    found = quotas(LIMITS, ACME, BETA)
    assert [let_through(found, who) for who in ("acme", "beta")] == [2, 4]
    assert found.ask("acme", 1, 0.5) == Refusal("pushes_per_key", 0.5)
    assert found.ask("acme", 1, 1.0) is None
    assert found.refusals.by_limit == {"pushes_per_key": 3, "bytes_per_key": 0}


def test_bytes_count_too_and_what_is_refused_does_not() -> None:
    found = quotas(LIMITS, ACME)
    assert found.ask("acme", 40, 0.0) is None
    refusal = found.ask("acme", 20, 0.0)
    assert refusal is not None
    assert (refusal.limit, round(refusal.wait_s, 6)) == ("bytes_per_key", 10.0)
    assert found.ask("acme", 10, 0.0) is None  # the second push


def test_a_body_larger_than_all_takes_all() -> None:
    """Else it would never get through; the topology does not allow it, but a reload may."""
    found = quotas(Ceilings(bytes_per_key=Rate(1, 50)), ACME)
    assert found.ask("acme", 1_000, 0.0) is None
    assert found.ask("acme", 1, 0.0) is not None


def test_without_keys_all_are_one_and_without_limits_there_is_none() -> None:
    assert let_through(quotas(), "") == 2
    free = quotas(NO_CEILINGS, ACME)
    assert all(free.ask(who, 1 << 20, 0.0) is None for who in ("", "acme") for _ in range(50))


def test_logics_share() -> None:
    assert let_through(quotas(Ceilings(pushes_per_key=Rate(3, 9)), ACME, logics=3), "acme") == 3


def test_another_rate_begins_anew_and_the_same_does_not() -> None:
    found = quotas(LIMITS, ACME, BETA)
    for who in ("acme", "beta"):
        let_through(found, who)
    found.follow(Ceilings(pushes_per_key=Rate(1, 3)), (ACME, BETA), 1)
    assert [let_through(found, who) for who in ("acme", "beta")] == [3, 0]


# ---------------------------------------------------------------- one answer for all shares


def share(streams: list[str], *outcomes: Outcome, home: Share | None = None) -> Share:
    found = Share("router-1", Publication("p", streams, 5, b""), 0.0, home)
    for outcome in outcomes:
        found.on_outcome(outcome, 0.0)
    return found


OK, NOT_NOW = Outcome(0, "ok", (1,)), Outcome(0, "unavailable")
OVER = Outcome(0, "unavailable", over=1, retry_ms=2_500)


def test_which_stream_has_too_much_is_told() -> None:
    found = published([share(["u:7"], OVER)])
    assert (found.status, found.refusal) == ("limited", Refusal("pushes_per_stream", 2.5, "u:7"))
    assert found.retry_after_s == 3
    assert found.parts[0].status == "limited"


def test_never_more_is_said_than_is_known_of_all() -> None:
    over, ok, not_now = share(["u:7"], OVER), share(["u:8"], OK), share(["u:9"], NOT_NOW)
    assert published([over, ok]).status == "unknown"
    assert (published([over, not_now]).status, published([over, not_now]).retry_after_s) == ("unavailable", 3)
    assert published([over, ok, not_now]).status == "unknown"
    assert published([ok, over]).refusal is None


def test_the_home_of_a_key_has_it_and_nothing_is_kept_all_the_same() -> None:
    home = share([], Outcome(0, "ok"))
    assert published([home, share(["u:7"], OVER, home=home)]).status == "limited"
    limited_home = share(["u:7"], OVER)
    follower = share(["u:8"], home=limited_home)
    follower.follow(limited_home)
    found = published([limited_home, follower])
    assert (found.status, found.refusal) == ("limited", Refusal("pushes_per_stream", 2.5, "u:7"))


def test_after_an_attempt_without_an_answer_nobody_knows() -> None:
    found = share(["u:7"])
    found.on_silence("no answer")
    found.on_outcome(OVER, 0.0)
    assert published([found]).status == "unknown"


def test_a_number_of_a_stream_that_is_not_there_is_no_reason() -> None:
    """Of a router with another version, say."""
    assert published([share(["u:7"], Outcome(0, "unavailable", over=2, retry_ms=1))]).status == "unavailable"


def test_a_refusal_in_words() -> None:
    assert Refusal("pushes_per_key", 0.0333).why == "more than pushes_per_key allows; try again in 0.0333 s"
    assert Refusal("pushes_per_stream", 12.0, "u:7").why.startswith("more into 'u:7' than pushes_per_stream allows")
    assert [Refusal("", wait_s).retry_after_s for wait_s in (0.001, 1.0, 1.1)] == [1, 1, 2]
    assert Published("", "ok").refusal is None
    assert Part("router-1", "limited", {}, "").status == "limited"


# ---------------------------------------------------------------- logins


def test_a_user_who_comes_too_often_is_told_when() -> None:
    limit = LoginLimit()
    limit.follow(Rate(0.1, 2))
    assert [limit.look(Grant("7"), True, 0.0) for _ in range(2)] == [Grant("7")] * 2
    found = limit.look(Grant("7"), True, 0.0)
    assert isinstance(found, Denial)
    assert (found.code, found.reason, found.retry_ms) == ("try_again", "come back in 10 s", 10_001)
    assert limit.look(Grant("8"), True, 0.0) == Grant("8")
    assert limit.look(Grant("7"), True, 10.0) == Grant("7")
    assert limit.refusals.by_limit == {"logins_per_user": 1}


@pytest.mark.parametrize(("user", "is_known"), [(f"{ANONYMOUS}1", True), ("0", False)])
def test_who_is_nobody_is_not_counted(user: str, is_known: bool) -> None:
    limit = LoginLimit()
    limit.follow(Rate(0.1, 1))
    assert all(isinstance(limit.look(Grant(user), is_known, 0.0), Grant) for _ in range(9))
    assert isinstance(limit.look(Grant("0"), True, 0.0), Grant)
    assert isinstance(limit.look(Grant("0"), True, 0.0), Denial)

"""goim's token handler, which believes everybody."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zim.fabric.grants import Denial, Grant, grant_problem
from zim.identity.goim import identify

NOBODY = Denial("refused", "the token is no number; a user's number is right, such as 7")


@pytest.mark.parametrize(
    ("token", "user"),
    [
        (b"7", "7"),
        (b"+7", "7"),
        (b"007", "7"),
        (b"-7", "-7"),
        (b"-0", "0"),
        (b"0", "0"),
        (b"9223372036854775807", "9223372036854775807"),
        (b"-9223372036854775808", "-9223372036854775808"),
        (b"0" * 63 + b"7", "7"),
    ],
)
def test_a_number_is_the_user_and_may_all(token: bytes, user: str) -> None:
    for speaks_goim in (True, False):
        grant = identify(token, speaks_goim)
        assert isinstance(grant, Grant)
        assert (grant.user, grant.rooms, grant.lifetime_ms, grant.asks) == (user, ("1",), 0, False)
        assert grant.rights.may_join("anything")
        assert grant.rights.may_read("u:8")


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b" 7",
        b"7 ",
        b"7\n",
        b"1_0",
        b"7.0",
        b"1e3",
        b"0x7",
        b"++7",
        b"+",
        b"9223372036854775808",
        b"-9223372036854775809",
        b"9" * 100_000,
        "٣".encode(),
        "７".encode(),
        b'"7"',
        b"\xff",
        b"7\0",
    ],
)
def test_anything_else_is_user_0_for_goim_and_nobody_for_zim(token: bytes) -> None:
    assert identify(token, speaks_goim=False) == NOBODY
    assert identify(token, speaks_goim=True) == Grant("0", (), ("*",), ("*",))


@given(st.binary(max_size=70) | st.integers().map(lambda n: b"%d" % n), st.booleans())
@example(b"-", True)
def test_any_bytes_are_somebody_or_nobody(token: bytes, speaks_goim: bool) -> None:
    found = identify(token, speaks_goim)
    if isinstance(found, Grant):
        assert grant_problem(found) == ""
        assert -(1 << 63) <= int(found.user) < 1 << 63
    else:
        assert (found, speaks_goim) == (NOBODY, False)

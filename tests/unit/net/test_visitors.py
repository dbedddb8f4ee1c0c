"""Pages that come from elsewhere are not welcome on loopback, unless the listener says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.net.visitors import Visitors

LOCAL = Visitors(is_local=True)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "127.0.0.1:7172", "127.9.9.9", "[::1]:80", "[::1]", "a.localhost", "localhost."],
)
def test_names_of_loopback_are_not_foreign(host: str) -> None:
    assert LOCAL.refusal({"HTTP_HOST": host}) == ""
    assert LOCAL.refusal({"HTTP_HOST": host, "HTTP_ORIGIN": f"http://{host}"}) == ""


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7172", "localhost.evil.example", "10.0.0.1", "[::2]:80", "", "127.0.0.1.evil", "x"],
)
def test_other_names_are(host: str) -> None:
    why = LOCAL.refusal({"HTTP_HOST": host})
    assert repr(host) in why or host.rpartition(":")[0] in why
    assert "hosts" in why
    assert Visitors().refusal({"HTTP_HOST": host, "HTTP_ORIGIN": "https://evil.example"}) == ""


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil", "", "nonsense", "http://["]
)
def test_pages_from_elsewhere_are_refused(origin: str) -> None:
    why = LOCAL.refusal({"HTTP_HOST": "localhost", "HTTP_ORIGIN": origin})
    assert repr(origin) in why
    assert "origins" in why


def test_who_asks_without_an_origin_is_no_page() -> None:
    assert LOCAL.refusal({"HTTP_HOST": "localhost:7172"}) == ""
    assert LOCAL.refusal({}) == ""


@pytest.mark.parametrize("is_local", [True, False])
def test_what_a_listener_names_is_welcome_and_nothing_else(is_local: bool) -> None:
    visitors = Visitors(is_local, ("https://app.example.com", "null"), ("push.example.com",))
    for origin, is_welcome in (
        ("https://App.example.com", True),
        ("null", True),
        ("https://other.example.com", False),
        ("https://push.example.com", True),  # a page of the name by which it is called itself
    ):
        assert (visitors.refusal({"HTTP_HOST": "push.example.com:80", "HTTP_ORIGIN": origin}) == "") is is_welcome
    assert visitors.refusal({"HTTP_HOST": "other.example.com"}) != ""
    assert Visitors(is_local, ("*",), ("*",)).refusal({"HTTP_HOST": "x", "HTTP_ORIGIN": "y"}) == ""


@given(st.text(), st.text())
def test_whatever_is_said_has_an_answer(host: str, origin: str) -> None:
    assert isinstance(LOCAL.refusal({"HTTP_HOST": host, "HTTP_ORIGIN": origin}), str)

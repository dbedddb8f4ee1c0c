"""Origins and hosts that can never match are refused, with what would be right."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.net.visitors import Visitors
from zim.topology.browsers import host_problem, origin_problem


@pytest.mark.parametrize(
    ("origin", "what", "right"),
    [
        ("app.example.com", "has no scheme", "https://app.example.com"),
        ("app.example.com/", "has no scheme", "https://app.example.com"),
        ("localhost:3000", "has no scheme", "https://localhost:3000"),
        ("https://app.example.com/", "has a path", "https://app.example.com"),
        ("http://app.example.com:8000/chat?x=1", "has a path", "http://app.example.com:8000"),
        ("https://app.example.com:443", "is spelled otherwise", "https://app.example.com"),
        ("http://app.example.com:80", "is spelled otherwise", "http://app.example.com"),
        ("https://bücher.example", "is spelled otherwise", "https://xn--bcher-kva.example"),
        (" https://app.example.com", "is spelled otherwise", "https://app.example.com"),
        ("wss://push.example.com/sub", "is where a page connects to", "https://push.example.com"),
        ("chrome-extension://abcd/", "has a path", "chrome-extension://abcd"),
    ],
)
def test_an_origin_that_no_page_has_is_refused(origin: str, what: str, right: str) -> None:
    assert origin_problem(origin).startswith(what)
    assert origin_problem(origin).endswith(f'; right is "{right}"')
    assert origin_problem(right) == ""


@pytest.mark.parametrize(
    "origin", ["https://*.example.com", "https://", "a b", "https://[::1", "https://a:b", "é" * 99]
)
def test_what_is_no_origin_at_all_is_refused(origin: str) -> None:
    assert origin_problem(origin).startswith("is no origin; right is")


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "file://", "http://10.0.0.1:81", "https://[2001:db8::1]", "app://.", "capacitor://localhost"],
)
def test_an_origin_that_a_page_may_have_is_taken(origin: str) -> None:
    assert origin_problem(origin) == ""
    assert Visitors(True, (origin,)).refusal({"HTTP_HOST": "localhost", "HTTP_ORIGIN": origin}) == ""


@pytest.mark.parametrize(
    ("host", "what", "right"),
    [
        ("push.example.com:7172", "has a port", "push.example.com"),
        ("push.example.com:", "has a port", "push.example.com"),
        ("https://push.example.com", "has a scheme", "push.example.com"),
        ("push.example.com/", "has a path", "push.example.com"),
        ("[2001:db8::1]", "stands in brackets", "2001:db8::1"),
        ("[2001:db8::1]:80", "has a port", "2001:db8::1"),
        ("bücher.example", "is spelled otherwise", "xn--bcher-kva.example"),
    ],
)
def test_a_host_that_no_request_names_is_refused(host: str, what: str, right: str) -> None:
    assert host_problem(host).startswith(what)
    assert host_problem(host).endswith(f'; right is "{right}"')
    assert host_problem(right) == ""


@pytest.mark.parametrize("host", ["*.example.com", "", "a b", "https://", "[::1"])
def test_what_is_no_host_at_all_is_refused(host: str) -> None:
    assert host_problem(host).startswith("is no name; right is")


@pytest.mark.parametrize("host", ["*", "push.example.com", "push.example.com.", "my_host", "10.0.0.1", "2001:db8::1"])
def test_a_host_that_a_request_may_name_is_taken(host: str) -> None:
    assert host_problem(host) == ""
    said = f"[{host}]:80" if "::" in host else f"{host}:80"
    assert Visitors(True, (), (host,)).refusal({"HTTP_HOST": said}) == ""


@given(st.text().map(str.lower))
def test_whatever_is_written_what_is_right_is_taken(text: str) -> None:
    for judge in (origin_problem, host_problem):
        for right in re.findall(r'right is "(.*)"$', judge(text)):
            assert judge(right) == ""

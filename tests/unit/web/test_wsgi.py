"""A call of a WSGI application, as PEP 3333 has it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from zim.web.wsgi import call_app

HEADERS = [("Content-Type", "text/plain")]


class Body:
    """An iterable that knows whether it was closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces, self.is_closed = pieces, False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)

    def close(self) -> None:
        self.is_closed = True


def broken() -> Iterator[bytes]:
    yield b"half"
    raise ValueError("a defect")


def test_an_answer() -> None:
    body = Body([b"a", b"", b"b"])

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Body:
        assert environ == {"X": 1}
        start_response("200 OK", HEADERS)
        return body

    assert call_app(app, {"X": 1}) == ("200 OK", HEADERS, b"ab")
    assert body.is_closed


def test_what_is_written_comes_before_what_is_returned() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        write = start_response("200 OK", HEADERS)
        write(b"a")
        write(b"b")
        return [b"c"]

    assert call_app(app, {})[2] == b"abc"


def test_an_application_may_start_with_its_first_piece() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        write = start_response("200 OK", HEADERS)
        write(b"a")
        yield b"b"
        write(b"c")
        yield b"d"

    assert call_app(app, {}) == ("200 OK", HEADERS, b"abcd")


def test_an_error_replaces_what_was_said_before() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        yield b"half"
        try:
            raise ValueError("a defect")
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        yield b"sorry"

    assert call_app(app, {}) == ("500 Oops", [], b"sorry")


def test_the_iterable_is_closed_after_an_error() -> None:
    body = Body(broken())

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Body:
        start_response("200 OK", HEADERS)
        return body

    with pytest.raises(ValueError, match="a defect"):
        call_app(app, {})
    assert body.is_closed


def test_headers_are_said_once() -> None:
    def never(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return [b"a"]

    def twice(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        start_response("200 OK", HEADERS)
        return []

    for app in (never, twice):
        with pytest.raises(RuntimeError):
            call_app(app, {})


def test_the_validator_of_the_standard_library_finds_nothing() -> None:
    from io import BytesIO, StringIO

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", HEADERS)
        return [b"a"]

    environ = {
        **{"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "1"},
        **{"SERVER_PROTOCOL": "HTTP/1.1", "QUERY_STRING": "", "wsgi.version": (1, 0), "wsgi.url_scheme": "http"},
        **{"wsgi.input": BytesIO(), "wsgi.errors": StringIO(), "wsgi.multithread": False},
        **{"wsgi.multiprocess": False, "wsgi.run_once": False},
    }
    assert call_app(validator(app), environ) == ("200 OK", HEADERS, b"a")

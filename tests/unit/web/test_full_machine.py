"""A full machine is not a reason to crash."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from tests.unit.web.support import Client, wait_until
from zim.web.server import HttpServer


@pytest.fixture
def no_more_files() -> Iterator[list[int]]:
    """Call nothing that opens a file. The list is of files to close for having one more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 32, hard))
    filler: list[int] = []
    try:
        yield filler
    finally:
        for fd in filler:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_file_for_a_connection(
    server: HttpServer, no_more_files: list[int], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with Client(server) as before:
        before.send(b"GET /healthz HTTP/1.1\r\nHost: zim\r\n\r\n")
        assert before.receive().status == 200
        spare = os.dup(0)
        try:
            while True:
                no_more_files.append(os.dup(0))
        except OSError:
            os.close(spare)
        with Client(server) as client:  # takes the spare one
            client.send(b"GET /healthz HTTP/1.1\r\nHost: zim\r\n\r\n")
            wait_until(lambda: "cannot accept connections" in caplog.messages)
            before.send(b"GET /healthz HTTP/1.1\r\nHost: zim\r\n\r\n")
            assert before.receive().status == 200

            for _ in range(2):  # one for the connection, one so that it is not the last
                os.close(no_more_files.pop())

            assert client.receive().status == 200
            wait_until(lambda: "accepting again" in caplog.messages)
    assert caplog.messages.count("cannot accept connections") == 1
    assert capfd.readouterr() == ("", "")

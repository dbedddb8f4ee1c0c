"""Who holds a port: real sockets of real processes, and the table of the kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.net.holders import ListeningSocket, holder, in_use, parse_listening

LISTENER = """
import socket, sys
server = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LINE = "0: {}:{:04X} 00000000:0000 {} 00000000:00000000 00:00000000 00000000 {} 0 {} 1 0000000000000000 100 0 0 10 0\n"

on_linux = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="/proc is Linux'")


@on_linux
@pytest.mark.parametrize(
    ("at", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "a.name.example"),
        ("::1", "::1"),
        ("::", "127.0.0.1"),
    ],
)
def test_another_process_is_named(at: str, asked: str) -> None:
    command = [sys.executable, "-c", LISTENER, at]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        assert holder(asked, port) == f"{name} (pid {process.pid})"
        process.communicate()


@on_linux
def test_who_listens_at_another_address_holds_nothing() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        assert holder("127.0.0.1", port) == ""
        assert f"(pid {os.getpid()})" in holder("127.0.0.2", port)


def test_nobody_holds_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert holder("127.0.0.1", port) == ""
    text = in_use("http", f"127.0.0.1:{port}")
    assert text == f"http 127.0.0.1:{port} is in use already; stop what uses it, or change http in the topology"


@on_linux
@pytest.mark.parametrize(("scheme", "host"), [("", "127.0.0.1"), ("tcp://", "127.0.0.1"), ("tcp://", "[::1]")])
def test_the_sentence_names_who_and_the_key(scheme: str, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host.strip("[]"), 0), family=family) as server:
        address = f"{scheme}{host}:{server.getsockname()[1]}"
        text = in_use("bind", address)
    assert text.startswith(f"bind {address} is in use already, by ")
    assert text.endswith(f"(pid {os.getpid()}); stop what uses it, or change bind in the topology")


def test_the_table_of_the_kernel() -> None:
    table = (
        HEAD
        + LINE.format("0100007F", 8080, "0A", 33, 4711)
        + LINE.format("0100007F", 8081, "01", 33, 4712)
        + LINE.format("00000000000000000000000001000000", 1, "0A", 0, 5)
        + LINE.format("0000000000000000FFFF00000100007F", 2, "0A", 0, 6)
    )
    assert list(parse_listening(table)) == [
        ListeningSocket(IPv4Address("127.0.0.1"), 8080, "4711", 33),
        ListeningSocket(IPv6Address("::1"), 1, "5", 0),
        ListeningSocket(IPv4Address("127.0.0.1"), 2, "6", 0),
    ]


@given(st.text(st.sampled_from("0AF: x\n"), max_size=200) | st.text())
def test_any_other_text_is_passed_over(table: str) -> None:
    assert all(isinstance(found, ListeningSocket) for found in parse_listening(table))


@given(st.sampled_from(["", "0", "zz", "0100007F", "é"]), st.text(max_size=5), st.text(max_size=5))
def test_wrong_fields_are_passed_over(ip: str, port: str, user: str) -> None:
    found = list(parse_listening(f"0: {ip}:{port} 0:0 0A 0:0 0:0 0 {user} 0 7\n"))
    assert len(found) <= 1


@on_linux
def test_a_connection_that_has_ended_holds_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        port = client.getsockname()[1]
        accepted, _ = server.accept()
        assert "stop what uses it" in in_use("http", f"127.0.0.1:{port}")
        client.close()  # first, so that it is here that it waits
        assert accepted.recv(1) == b""
        accepted.close()
        with socket.socket() as another:
            another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                another.bind(("127.0.0.1", port))
    text = in_use("http", f"127.0.0.1:{port}")
    assert text.startswith(f"http 127.0.0.1:{port} is in use still, though nobody listens there: ")
    assert "passes within a minute" in text

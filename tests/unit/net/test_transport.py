"""Links over `ipc://`: what is in use is in use, as for tcp."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import gevent
import pytest

from zim.errors import NodeError
from zim.net.transport import Dealer, Inbox, Server


def test_what_another_serves_is_in_use(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path / 'link'}"
    first = Server(endpoint)
    for kind in (Server, Inbox):
        with pytest.raises(NodeError, match=r"^bind ipc://.*link is in use already; .* change bind in"):
            kind(endpoint)
    first.close()


def test_what_a_process_has_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "link"
    endpoint = f"ipc://{path}"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert path.is_socket()
    Inbox(endpoint).close()


@pytest.mark.parametrize("kind", ["file", "folder", "link to nothing"])
def test_what_is_no_socket_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "link"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nothing")
    with pytest.raises(NodeError, match="is there, and no socket"):
        Server(f"ipc://{path}")
    assert not path.is_socket()
    assert path.is_symlink() or path.is_dir() or path.read_text() == "precious"


def test_a_message_is_not_kept_until_the_next_one_comes(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path / 'link'}"
    server, taken = Server(endpoint), list[bytes]()
    greenlet = gevent.spawn(server.receive, lambda envelope, frame, _: taken.append(frame))
    dealer = Dealer(endpoint)
    sent = b"x" * 10_000
    while not dealer.send(sent):
        gevent.sleep(0.001)
    while not taken:
        gevent.sleep(0.001)
    while sys.getrefcount(taken[0]) > 2:  # until it waits for the next one: 2 are the list, and the question
        gevent.sleep(0.001)
    assert taken == [sent]
    dealer.close()
    server.close()
    greenlet.join()


def test_what_has_ended_answers_nobody_and_counts_it(tmp_path: Path) -> None:
    """The disk's work of a node that stops may end after its server has."""
    server = Server(f"ipc://{tmp_path / 'link'}")
    server.close()
    assert not server.send((b"somebody",), b"an answer")
    assert server.dropped == 1


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog is silent on Linux, and /proc tells who knocks")
def test_who_does_not_answer_is_asked_anew_and_not_ever_more_seldom() -> None:
    """A machine that is away says nothing, as a listener does whose backlog is full. Each connect is another port."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            dealer = Dealer(f"tcp://127.0.0.1:{port}")
            try:
                seen: set[str] = set()
                while len(seen) < 2:
                    seen |= knocking(port)
                    gevent.sleep(0.01)
            finally:
                dealer.close()


def knocking(port: int) -> set[str]:
    """The addresses that wait for an answer from a port, as the kernel has them."""
    lines = [
        line.split() for path in ("/proc/net/tcp", "/proc/net/tcp6") for line in Path(path).read_text().splitlines()
    ]
    return {line[1] for line in lines if line[2].endswith(f":{port:04X}") and line[3] == "02"}  # SYN_SENT

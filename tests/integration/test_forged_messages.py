"""Forged and broken messages on every link that listens: a node counts what it does not understand, and goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
import zmq.green as zmq
from gevent import socket
from gevent.server import StreamServer

from tests.harness import WAIT_S, Fabric, free_ports, running, wait_until
from tests.integration.forgeries import LINKS, Link, absurd, broken, is_counted
from tests.zim_client import ZimClient
from zim.client import ZmqPublisher
from zim.net.transport import MAX_MESSAGE_BYTES

GROWTH_BYTES, ROUNDS = 1 << 20, 12  # of a node, in a round of all that is broken


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(has_admin=True) as f:
        yield f
        assert "Traceback" not in f.log


@pytest.fixture(scope="module")
def bystander(fabric: Fabric) -> ZimClient:
    return ZimClient(fabric.tcp["comet-1"], "77", rooms=["lobby"])


@pytest.fixture(autouse=True)
def _all_goes_on(fabric: Fabric, bystander: ZimClient) -> Iterator[None]:
    """No node has died, and a push to each kind of stream arrives."""
    pids = {name: fabric.pid(name) for name in fabric.names}
    yield
    delivers(fabric, bystander)
    assert {name: fabric.pid(name) for name in fabric.names} == pids


def delivers(fabric: Fabric, bystander: ZimClient) -> None:
    for to, stream in (({"users": ["77"]}, "u:77"), ({"rooms": ["lobby"]}, "r:lobby"), ({"everybody": True}, "*")):
        before = len(bystander.places(stream))
        status, answer = fabric.push({"to": to, "body": "still there?"})
        assert status == 200, answer
        wait_until(
            lambda s=stream, b=before: b'"still there?"' in [body for _, body in bystander.places(s)[b:]],  # type: ignore[misc]
            f"a push to {stream} arrives; {bystander.close_reason}",
        )


def bad_messages(fabric: Fabric, node: str) -> int:
    """How many a node has not understood."""
    found = re.search(r"^zim_node_bad_messages_total (\S+)$", fabric.metrics(node), re.MULTILINE)
    assert found
    return int(float(found[1]))


def address(fabric: Fabric, link: Link) -> str:
    return fabric.publish[link.node] if link.is_publish else fabric.binds[link.node]


@contextmanager
def talking(fabric: Fabric, link: Link) -> Iterator[zmq.Socket[bytes]]:
    """A socket to a link. It reads no answers: a node must not wait for that."""
    with zmq.Context() as context, context.socket(zmq.DEALER if link.answers else zmq.PUSH) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.IMMEDIATE, 1)
        sock.connect(address(fabric, link))
        yield sock


def say(fabric: Fabric, link: Link, sayings: Iterable[list[bytes]], alone: bool = True) -> tuple[int, int]:
    """Says them, and waits until they are taken; how many there were, and how many were counted as bad.

    Args:
        alone: nobody else says what is bad.
    """
    before, said, bad = bad_messages(fabric, link.node), 0, 0
    with talking(fabric, link) as sock:
        for frames in sayings:
            sock.send_multipart(frames)
            said += 1
            bad += is_counted(link, frames)
        sock.send(b"\xc1")  # the last one; links keep their order
        wait_until(lambda: bad_messages(fabric, link.node) >= before + bad + 1, f"{bad} of {said} are counted")
    assert not alone or bad_messages(fabric, link.node) == before + bad + 1
    return said, bad


BROKEN = [(name, what) for name in LINKS for what in broken(LINKS[name])]


@pytest.mark.parametrize(("name", "what"), BROKEN, ids=[f"{name}: {what}" for name, what in BROKEN])
def test_what_is_broken_is_counted(fabric: Fabric, name: str, what: str) -> None:
    said, _ = say(fabric, LINKS[name], broken(LINKS[name])[what])
    assert said


@pytest.mark.parametrize("name", LINKS)
def test_absurd_values(fabric: Fabric, name: str) -> None:
    said, bad = say(fabric, LINKS[name], absurd(LINKS[name]))
    assert said > 50
    assert 0 < bad < said


@pytest.mark.parametrize("name", LINKS)
def test_a_message_above_the_limit_ends_its_link_and_no_other(fabric: Fabric, name: str) -> None:
    link = LINKS[name]
    with talking(fabric, link) as sock:
        sock.send(bytes(MAX_MESSAGE_BYTES + 1))
        say(fabric, link, [[b"\xc1"]])


@pytest.mark.parametrize("name", LINKS)
def test_what_is_no_zmtp(fabric: Fabric, name: str) -> None:
    """Bytes that are not ZeroMQ's: it hangs up, or waits; others are served."""
    host, _, port = address(fabric, LINKS[name]).removeprefix("tcp://").rpartition(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\3\0NULL" + bytes(48)
    sayings = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff" * 100,
        bytes(100),
        b"\x16\x03\x01",
        greeting,
        greeting[:20],
    ]
    sayings += [greeting + b"\x04\xff" * 50, greeting + b"\x04\x1a\x05READY\x0bSocket-Type\x7f\xff\xff\xffXX", b""]
    sayings += [b"\xff" + bytes(8) + b"\x7f\3\0CURVE" + bytes(47), b"\xff" + bytes(8) + b"\x7f\1" + bytes(60)]
    with ExitStack() as stack:
        for saying in sayings * 5:
            sock = stack.enter_context(socket.create_connection((host, int(port)), timeout=WAIT_S))
            with suppress(OSError):  # it may have hung up
                sock.sendall(saying)
        say(fabric, LINKS[name], [[b"\xc1"]], alone=False)  # of zeros some are messages to ZMTP 2.0


def test_memory_does_not_grow(fabric: Fabric) -> None:
    """Buffers and the allocator's arenas grow to what a storm needs; the same storm again needs no more."""
    nodes = [psutil.Process(fabric.pid(name)) for name in fabric.names]
    storm = ("huge", "deep", "many frames")
    before = [0] * len(nodes)
    for _ in range(ROUNDS):
        for link in LINKS.values():
            sayings = broken(link)
            for what in storm:
                say(fabric, link, sayings[what])
        now = [node.memory_info().rss for node in nodes]
        if max(after - there for after, there in zip(now, before, strict=True)) < GROWTH_BYTES:
            return
        before = now
    raise AssertionError(f"after {ROUNDS} rounds it still grows: {before} to {now}")


class Recorder:
    """Between those who call a node and the node: keeps what they say."""

    def __init__(self, port: int, target: str) -> None:
        host, _, target_port = target.removeprefix("tcp://").rpartition(":")
        self._target = host, int(target_port)
        self.heard: list[bytearray] = []
        self.server = StreamServer(("127.0.0.1", port), self._serve)

    def _serve(self, caller: socket.socket, _: object) -> None:
        heard = bytearray()
        self.heard.append(heard)
        with caller, socket.create_connection(self._target) as node:

            def back() -> None:
                try:
                    while data := node.recv(1 << 16):
                        caller.sendall(data)
                except OSError:
                    pass

            backing = gevent.spawn(back)
            try:
                while data := caller.recv(1 << 16):
                    heard += data
                    node.sendall(data)
            except OSError:
                pass
            backing.kill()


def test_what_was_said_before_is_said_again(tmp_path: Path) -> None:
    """All that was said on each link, byte for byte, again and again: nobody gets anything twice."""
    kinds = ("router", "logic", "job", "comet")
    ports = dict(zip((*kinds, "publish"), free_ports(5), strict=True))
    advertise: dict[str, Any] = {kind: {"advertise": f"tcp://127.0.0.1:{ports[kind]}"} for kind in kinds}
    fabric = Fabric(tmp_path, has_admin=True, **advertise)
    targets = {kind: fabric.binds[f"{kind}-1"] for kind in advertise} | {"publish": fabric.publish["logic-1"]}
    recorders = {kind: Recorder(ports[kind], target) for kind, target in targets.items()}
    for recorder in recorders.values():
        recorder.server.start()
    try:
        fabric.start()
        client = ZimClient(fabric.ws["comet-1"], "77", is_ws=True, rooms=["lobby"])
        pids = {name: fabric.pid(name) for name in fabric.names}
        with ZmqPublisher(f"tcp://127.0.0.1:{ports['publish']}") as publisher:
            pushes = [publisher.push(b"%d" % n, users="77", rooms="lobby") for n in range(50)]
            publisher.flush()
            assert {push.result().push_id for push in pushes}
        for n in range(50, 60):
            assert fabric.push({"to": {"users": ["77"], "everybody": True}, "body": n}, f"key-{n}")[0] == 200
        client.wait_for("u:77", 60)
        client.wait_for("r:lobby", 50)
        client.wait_for("*", 10)
        for kind, recorder in recorders.items():
            assert recorder.heard, kind
            host, _, port = targets[kind].removeprefix("tcp://").rpartition(":")
            for heard in list(recorder.heard) * 3:
                with socket.create_connection((host, int(port)), timeout=WAIT_S) as sock:
                    sock.sendall(bytes(heard))
                    gevent.sleep(0.05)  # nobody answers: give it the time to be read
        assert fabric.push({"to": {"users": ["77"], "rooms": ["lobby"], "everybody": True}, "body": "last"})[0] == 200
        for stream, count in (("u:77", 61), ("r:lobby", 51), ("*", 11)):
            places = client.wait_for(stream, count)
            assert [offset for offset, _ in places] == list(range(1, count + 1)), stream
            assert len({body for _, body in places}) == count, "something came twice"
        assert {name: fabric.pid(name) for name in fabric.names} == pids
        assert "Traceback" not in fabric.log
        client.close()
    finally:
        for recorder in recorders.values():
            recorder.server.stop(timeout=0)
        fabric.stop()

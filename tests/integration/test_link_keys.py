"""Links with keys: encrypted, who is at their other end is known, and what is not a node's to say is passed over."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
import zmq.green as zmq
from gevent import socket
from gevent.server import StreamServer

from tests.harness import Client, Fabric, free_ports, running, wait_until
from zim.client import PushUnavailable, ZmqPublisher
from zim.fabric.questions import OnlineCounts
from zim.identity.link_keys import make_secret, public_of
from zim.protocol import codec, messages
from zim.protocol.logins import Auth

FORGED, OUTDATED = "zim_node_forged_messages_total", "zim_node_outdated_messages_total"
REFUSED = "zim_node_refused_links_total"
KEYS = {"keys": "link-keys"}
GARBAGE = (b"", b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\xff" + b"\0" * 8 + b"\x7f\x03\x01CURVE" + b"\0" * 200)


def counted(fabric: Fabric, node: str, metric: str) -> float:
    (value,) = re.findall(rf"^{metric} (\S+)$", fabric.metrics(node), re.MULTILINE)
    return float(value)


def public(fabric: Fabric, node: str) -> str:
    key: str = tomllib.loads((fabric.link_keys / "public.toml").read_text())[node]
    return key


def secret(fabric: Fabric, node: str) -> str:
    return (fabric.link_keys / f"{node}.secret").read_text().strip()


def zim(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "zim", *words], capture_output=True, text=True, timeout=60)


def reload(fabric: Fabric) -> str:
    done = zim("reload", str(fabric.file))
    assert done.returncode == 0, done
    return done.stdout


def waits_for(fabric: Fabric, node: str) -> str:
    """What a node says at `/readyz`."""
    connection = http.client.HTTPConnection(fabric.admin[node], timeout=20)
    connection.request("GET", "/readyz")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


class Stranger:
    """A ZeroMQ socket of our own on a link.

    Attributes:
        events: what became of its handshakes.
    """

    def __init__(self, kind: int, address: str, server_key: str = "", own_secret: str = "") -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.events: list[int] = []
        if own_secret:
            self.socket.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(server_key))
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(own_secret))
            self.socket.setsockopt(zmq.CURVE_PUBLICKEY, bytes.fromhex(public_of(own_secret)))
        self._monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(zmq.EVENT_ALL)
        self._watcher = gevent.spawn(self._watch)
        self.socket.connect(address)

    def _watch(self) -> None:
        while True:
            frames = self._monitor.recv_multipart()
            self.events.append(int.from_bytes(frames[0][:2], sys.byteorder))

    def has(self, *events: int) -> bool:
        return any(event in self.events for event in events)

    def say(self, *said: Any) -> None:
        """Sends it, once it is let in."""
        wait_until(lambda: self.has(zmq.EVENT_HANDSHAKE_SUCCEEDED), "a handshake")
        self.socket.send(codec.encode(said))

    def hears(self, timeout_s: float) -> bytes | None:
        """What comes next; nothing if nothing comes in that time."""
        return self.socket.recv() if self.socket.poll(int(timeout_s * 1000)) else None

    def close(self) -> None:
        self._watcher.kill()
        self.socket.disable_monitor()
        self.socket.close()


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    with running(
        tmp_path_factory.mktemp("keys"), routers=2, logics=2, jobs=2, comets=2, has_admin=True, links=KEYS
    ) as found:
        yield found


@contextmanager
def stranger(*args: Any) -> Iterator[Stranger]:
    found = Stranger(*args)
    try:
        yield found
    finally:
        found.close()


def test_pushes_go_through_all_nodes(fabric: Fabric) -> None:
    clients = [Client(at, str(n)) for n, at in enumerate(fabric.tcp.values(), 900)]
    for logic in fabric.http:
        status, _ = fabric.push({"to": {"users": ["900", "901"]}, "body": {"by": logic}}, logic=logic)
        assert status == 200
    for client in clients:
        assert len(client.wait(2)) == 2
        client.close()
    for node in fabric.names:
        assert [counted(fabric, node, metric) for metric in (FORGED, OUTDATED)] == [0, 0]


def test_publishers_pin_the_key_of_their_logic(fabric: Fabric) -> None:
    endpoints = list(fabric.publish.values())
    keys = [public(fabric, name) for name in fabric.publish]
    with ZmqPublisher(endpoints, server_key=keys) as publisher:
        assert publisher.push(b"1", users=["910"]).result(20).push_id
    with ZmqPublisher(endpoints[0], server_key=keys[1], retry_s=1.5) as publisher, pytest.raises(PushUnavailable):
        publisher.push(b"2", users=["910"]).result(20)
    with ZmqPublisher(endpoints[0], retry_s=1.5) as publisher, pytest.raises(PushUnavailable):  # in clear
        publisher.push(b"3", users=["910"]).result(20)


def test_who_has_no_key_of_a_node_is_let_in_nowhere(fabric: Fabric) -> None:
    at, key = fabric.binds["router-1"], public(fabric, "router-1")
    before = counted(fabric, "router-1", REFUSED)
    with stranger(zmq.DEALER, at, key, make_secret()) as unknown:
        wait_until(lambda: unknown.has(zmq.EVENT_HANDSHAKE_FAILED_AUTH), "its key is refused")
        assert not unknown.has(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    assert counted(fabric, "router-1", REFUSED) == before + 1
    assert "a link with an unknown key is refused" in fabric.log
    with stranger(zmq.DEALER, at) as plain:
        wait_until(lambda: plain.has(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL), "it is not understood")
        assert not plain.has(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    with stranger(zmq.DEALER, at, public(fabric, "router-2"), secret(fabric, "comet-1")) as mistaken:
        failed = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        wait_until(lambda: mistaken.has(failed), "the router has another key")
        assert not mistaken.has(zmq.EVENT_HANDSHAKE_SUCCEEDED)


def test_garbage_does_not_shut_the_door(fabric: Fabric) -> None:
    host, port = fabric.binds["router-1"].removeprefix("tcp://").split(":")
    for garbage in (
        b"",
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" + b"\0" * 8 + b"\x7f\x03\x01CURVE" + b"\0" * 200,
    ):
        with socket.create_connection((host, int(port))) as s:
            s.sendall(garbage)
    with stranger(zmq.DEALER, fabric.binds["router-1"], public(fabric, "router-1"), secret(fabric, "logic-1")) as logic:
        logic.say(messages.AskTime("router-1", 1))
        answer = logic.hears(20)
        assert answer is not None
        assert isinstance(codec.decode(answer, messages.ToAsker)[0], messages.LogTime)


def test_a_comet_says_nothing_in_anothers_name_nor_what_a_logic_says(fabric: Fabric) -> None:
    at, key = fabric.binds["router-1"], public(fabric, "router-1")
    before = counted(fabric, "router-1", FORGED)
    with stranger(zmq.DEALER, at, key, secret(fabric, "comet-1")) as comet:
        forged = [
            messages.Renew("router-1", "comet-2", 1, 1, 1, 1),
            messages.Changes("router-1", "comet-2", 1, 1, []),
            messages.Fetch("router-1", "comet-2", 1, 1, 1, 2),
            messages.Publish("router-1", 1, 1, 0, []),
            messages.Ask("router-1", 2, OnlineCounts()),
            messages.AskTime("router-1", 3),
        ]
        comet.say(*forged, messages.Read("router-1", 4, "u:1", 0, 1, 1))
        answer = comet.hears(20)  # to what a comet may ask, and to nothing else
        assert answer is not None
        (said,) = codec.decode(answer, messages.ToComet | messages.ToAsker)
        assert isinstance(said, messages.Records)
        assert counted(fabric, "router-1", FORGED) == before + len(forged)
        comet.socket.send_multipart([b"", codec.encode_plain({"counts": True})])  # nor what a person asks at a REPL
        wait_until(lambda: counted(fabric, "router-1", FORGED) > before + len(forged), "that is counted")
    assert "a node says what is not its to say" in fabric.log


def test_entries_are_a_jobs_pushes_a_routers_and_logins_a_comets(fabric: Fabric) -> None:
    entry = messages.Entry("router-1", "comet-2", 1, 1, 1, "x", 5, b"forged", [("u:1", 1)])
    push = messages.Push("router-2", "x", 5, b"forged", [])
    cases = [
        ("comet-2", zmq.PUSH, "comet-1", entry),  # a comet is no job
        ("comet-2", zmq.PUSH, "router-1", entry),
        ("job-1", zmq.PUSH, "router-1", push),  # in the name of another router
        ("job-1", zmq.PUSH, "comet-1", push),
        ("logic-1", zmq.DEALER, "job-1", Auth(1, b"7", 1)),
    ]
    for where, kind, speaker, said in cases:
        before = counted(fabric, where, FORGED)
        with stranger(kind, fabric.binds[where], public(fabric, where), secret(fabric, speaker)) as one:
            one.say(said)
            wait_until(lambda b=before, w=where: counted(fabric, w, FORGED) == b + 1, f"{where} {speaker}")  # type: ignore[misc]
            assert kind == zmq.PUSH or one.hears(0.2) is None


def test_a_node_that_is_killed_comes_back(tmp_path: Path) -> None:
    with running(tmp_path, has_admin=True, links=KEYS) as fabric:
        for node in ("router-1", "job-1", "logic-1", "comet-1"):
            pid = fabric.kill(node)
            wait_until(lambda n=node, p=pid: fabric.pid(n) not in (0, p), f"{node} runs again")  # type: ignore[misc]

        def is_there() -> bool:
            try:
                return fabric.push({"to": {"users": ["1"]}, "body": 1})[0] == 200
            except OSError:
                return False

        wait_until(is_there, "a push is taken")

        def is_ready(node: str) -> bool:
            try:
                return "zim_node_info" in fabric.metrics(node)
            except OSError:
                return False

        wait_until(lambda: is_ready("comet-1"), "the comet is ready")
        client = Client(fabric.tcp["comet-1"], "7")
        fabric.push({"to": {"users": ["7"]}, "body": {"a": 1}})
        assert client.wait(1)[0].body == b'{"a":1}'


def test_a_key_that_is_taken_away_ends_its_links_and_put_back_begins_them(tmp_path: Path) -> None:
    with running(tmp_path, comets=2, has_admin=True, links=KEYS) as fabric:
        listed = fabric.link_keys / "public.toml"
        whole = listed.read_text()
        at, key = fabric.binds["router-1"], public(fabric, "router-1")
        there = Client(fabric.tcp["comet-2"], "7")
        with stranger(zmq.DEALER, at, key, secret(fabric, "comet-2")) as thief:
            read = messages.Read("router-1", 4, "u:1", 0, 1, 1)
            thief.say(read)
            assert thief.hears(20)
            listed.write_text("".join(line for line in whole.splitlines(True) if not line.startswith("comet-2")))
            assert "links.keys: the key of comet-2, taken away" in reload(fabric)
            wait_until(lambda: thief.has(zmq.EVENT_HANDSHAKE_FAILED_AUTH), "its connection is cut, and it is refused")
            assert thief.hears(0.2) is None

        def online() -> dict[int, int]:
            return fabric.count("server")

        wait_until(lambda: 2 not in online(), "the router does not hear comet-2 any more")
        fabric.push({"to": {"users": ["7"]}, "body": {"a": 1}})
        wait_until(lambda: "it does not know our link key" in fabric.log, "comet-2 says why")
        why = "not registered with router-1: we have no link key in the list"
        wait_until(lambda: why in waits_for(fabric, "comet-2"), "and when asked")
        wait_until(lambda: counted(fabric, "router-1", REFUSED) > 1, "it is counted")
        assert there.packets == []
        other = Client(fabric.tcp["comet-1"], "8")
        fabric.push({"to": {"users": ["8"]}, "body": {"b": 1}})
        assert other.wait(1)[0].body == b'{"b":1}'
        listed.write_text(whole)
        assert "links.keys: the key of comet-2, added" in reload(fabric)
        wait_until(lambda: online().get(2) == 1, "comet-2 is back, with its client")
        assert there.wait(1)[0].body == b'{"a":1}'  # what was pushed meanwhile


@pytest.mark.parametrize("links_by", ["", "localhost"])
def test_another_key_takes_effect_without_a_restart(tmp_path: Path, links_by: str) -> None:
    with running(tmp_path, has_admin=True, links_by=links_by, links=KEYS) as fabric:
        pids = {name: fabric.pid(name) for name in fabric.names}
        client = Client(fabric.tcp["comet-1"], "7")
        listed = fabric.link_keys / "public.toml"
        old = secret(fabric, "router-1")
        listed.write_text("".join(line for line in listed.read_text().splitlines(True) if "router-1" not in line))
        (fabric.link_keys / "router-1.secret").unlink()
        assert zim("link-key", "make", "--topology", str(fabric.file)).returncode == 0
        assert secret(fabric, "router-1") != old
        assert "links.keys: the key of router-1, replaced" in reload(fabric)
        registered = "registered with router-1"

        def is_taken() -> bool:
            return fabric.push({"to": {"users": ["7"]}, "body": {"a": 1}}, key="once")[0] == 200

        wait_until(is_taken, registered)
        assert client.wait(1)[0].body == b'{"a":1}'
        assert {name: fabric.pid(name) for name in fabric.names} == pids
        with stranger(zmq.PUSH, fabric.binds["job-1"], public(fabric, "job-1"), old) as thief:
            wait_until(lambda: thief.has(zmq.EVENT_HANDSHAKE_FAILED_AUTH), "the old key is nobody's")


def test_machines_that_have_their_own_secrets_alone(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    hosts: dict[str, Any] = {
        "router": {"host": "a"},
        "job": {"host": "b"},
        "logic": {"host": "a"},
        "comet": {"host": "b"},
    }
    made = Fabric(a, links=KEYS, options=["--host", "a"], **hosts)
    shutil.copytree(a, b)
    for folder, strange in ((a, ("job-1", "comet-1")), (b, ("router-1", "logic-1"))):
        for name in strange:
            (folder / "link-keys" / f"{name}.secret").unlink()
    with (b / "log").open("wb") as out:
        command = [sys.executable, "-m", "zim", "up", "--host", "b", str(b / "topology.toml")]
        other = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        made.start()
        client = wait_until(lambda: _client(made.tcp["comet-1"]), "the comet lets somebody in")
        made.push({"to": {"users": ["7"]}, "body": {"a": 1}})
        assert client.wait(1)[0].body == b'{"a":1}'
        client.close()
        assert zim("link-key", "check", "--host", "b", "--topology", str(b / "topology.toml")).returncode == 0
        assert zim("link-key", "check", "--host", "a", "--topology", str(b / "topology.toml")).returncode == 1
    finally:
        other.terminate()
        other.wait(20)
        made.stop()


def _client(address: str) -> Client | None:
    try:
        return Client(address, "7")
    except (OSError, AssertionError):
        return None


class Tap:
    """Hands on what goes between two nodes, and keeps a copy."""

    def __init__(self, to: str) -> None:
        self.seen = bytearray()
        self._to = to.removeprefix("tcp://").split(":")
        (port,) = free_ports(1)
        self.address = f"tcp://127.0.0.1:{port}"
        self._server = StreamServer(("127.0.0.1", port), self._serve)
        self._server.start()

    def _serve(self, near: socket.socket, _: Any) -> None:
        far = socket.create_connection((self._to[0], int(self._to[1])))
        gevent.joinall([gevent.spawn(self._copy, near, far), gevent.spawn(self._copy, far, near)])

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self.seen += data
                target.sendall(data)
        except OSError:
            pass
        source.close()
        target.close()

    def close(self) -> None:
        self._server.stop()


@pytest.mark.parametrize("has_keys", [True, False])
def test_who_is_in_between_reads_nothing(tmp_path: Path, has_keys: bool) -> None:
    planted = "a-body-that-nobody-reads"
    made = Fabric(tmp_path, links=KEYS) if has_keys else Fabric(tmp_path)
    taps = {name: Tap(made.binds[name]) for name in made.names}
    text = made.file.read_text()
    for name, tap in taps.items():
        bind = f'bind = "{made.binds[name]}"'
        assert bind in text
        text = text.replace(bind, f'{bind}\nadvertise = "{tap.address}"')
    made.file.write_text(text)
    try:
        made.start()
        client = Client(made.tcp["comet-1"], "7")
        made.push({"to": {"users": ["7"]}, "body": {"text": planted}})
        assert planted.encode() in client.wait(1)[0].body
        client.close()
    finally:
        made.stop()
        for tap in taps.values():
            tap.close()
    for name, tap in taps.items():
        assert tap.seen
        # Without keys it is there for all to read: so the tap does see what goes by.
        assert (planted.encode() in tap.seen) == (not has_keys and name != "logic-1"), name


def test_a_wrong_list_or_secret_does_not_start(tmp_path: Path) -> None:
    made = Fabric(tmp_path, links=KEYS)
    file = made.link_keys / "comet-1.secret"
    right = file.read_text()
    listed = made.link_keys / "public.toml"
    whole = listed.read_text()

    def fails(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "zim", "up", str(made.file)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode != 0
        said = done.stdout + done.stderr
        for word in words:
            assert word in said, said
        assert right.strip() not in said
        return said

    file.write_text(make_secret())
    fails("comet-1.secret: is not the secret of the key that", "public.toml has for comet-1")
    file.write_text("nonsense")
    fails("comet-1.secret: is no secret link key; right is 64 hexadecimal digits")
    file.unlink()
    fails("comet-1.secret: there is no such file, and comet-1 needs its secret link key", "link-key make")
    file.write_text(right)
    listed.write_text("".join(line for line in whole.splitlines(True) if "comet-1" not in line))
    fails("public.toml: has no key of comet-1, so no other node lets it in")
    listed.write_text(whole + 'comet-2 = "short"\n')
    fails("what stands for comet-2 is no link key; right is 64 hexadecimal digits")
    listed.unlink()
    fails("links.keys: ", "public.toml: there is no such file; ", "link-key make writes it")

"""Real fabrics for tests: real processes on free ports, clients on real sockets, kills by pid."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import gevent
import psutil
from gevent import socket

from zim.protocol import frame, websocket
from zim.protocol.frame import Op, Packet
from zim.protocol.framings.tcp import TcpReader
from zim.protocol.websocket import FrameReader, encode_frame

WAIT_S = 20.0


def wait_until(fact: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Waits for a fact and returns it; fails with `what` if it does not come true."""
    until = time.monotonic() + timeout_s
    while not (found := fact()):
        assert time.monotonic() < until, f"still not so after {timeout_s} s: {what}"
        gevent.sleep(0.01)
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, outside of what the kernel gives to connecting sockets.

    Each of pytest's workers has ports of its own: those of another may not be in use yet.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(16_000 + mine, 32_000, workers)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def is_listening(address: str) -> bool:
    """Somebody accepts connections at `host:port`."""
    host, _, port = address.rpartition(":")
    with socket.socket() as s:
        return bool(s.connect_ex((host, int(port))) == 0)


class Fabric:
    """One fabric, started by `zim up`."""

    def __init__(  # noqa: PLR0913 all that tests vary
        self,
        folder: Path,
        routers: int = 1,
        logics: int = 1,
        jobs: int = 1,
        comets: int = 1,
        more: str = "",
        has_admin: bool = False,
        listeners: dict[str, dict[str, Any]] | None = None,
        links_by: str = "",
        options: Sequence[str] = (),
        later: Sequence[str] = (),
        **keys: dict[str, Any],
    ) -> None:
        """
        Args:
            later: nodes that are not in the file until `add_later`.
            more: top-level tables.
            has_admin: every node has an `admin` address.
            listeners: more keys of all listeners of a kind, `{"ws": {"origins": ["*"]}}`.
            options: of `zim up`.
            links_by: a name that nodes use for each other, instead of 127.0.0.1.
            keys: more keys for all nodes of a kind, `comet={"heartbeat_s": 1}`, or for `fabric`; with
                `links={"keys": "link-keys"}` they are made.
        """
        self.options = options
        ports = iter(free_ports(2 * routers + 4 * logics + 2 * jobs + 4 * comets))

        def local() -> str:
            return f"127.0.0.1:{next(ports)}"

        lines = ["[fabric]", 'name = "test"', 'data_dir = "var"', *_toml(keys.get("fabric", {}))]
        after: list[str] = []
        self.http: dict[str, str] = {}
        self.publish: dict[str, str] = {}
        self.tcp: dict[str, str] = {}
        self.ws: dict[str, str] = {}
        self.binds: dict[str, str] = {}
        self.admin: dict[str, str] = {}
        for kind, count in (("router", routers), ("logic", logics), ("job", jobs), ("comet", comets)):
            for i in range(1, count + 1):
                name = f"{kind}-{i}"
                self.binds[name] = f"tcp://{local()}"
                node: dict[str, Any] = {"id": i, "bind": self.binds[name]}
                if links_by:
                    node["advertise"] = self.binds[name].replace("127.0.0.1", links_by)
                if kind == "logic":
                    node["http"] = self.http[name] = local()
                    node["publish"] = self.publish[name] = f"tcp://{local()}"
                if kind == "comet":
                    node["tcp"] = self.tcp[name] = local()
                    node["ws"] = self.ws[name] = local()
                if has_admin:
                    node["admin"] = self.admin[name] = local()
                node |= {at: {"address": node[at], **of} for at, of in (listeners or {}).items() if at in node}
                (after if name in later else lines).extend([f"[[{kind}]]", *_toml({**node, **keys.get(kind, {})})])
        self.names = list(self.binds)
        self.file = folder / "topology.toml"
        if "links" in keys:
            more += "\n" + "\n".join(["[links]", *_toml(keys["links"])])
        self.file.write_text("\n".join([*lines, more]) + "\n")
        self._later = "\n".join(after) + "\n"
        self.link_keys = folder / "link-keys"
        if "links" in keys:
            self.make_link_keys()
        self.log_file = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def make_link_keys(self) -> None:
        """A pair for each node of the file that has none."""
        command = [sys.executable, "-m", "zim", "link-key", "make", "--topology", str(self.file)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def add_later(self) -> None:
        """The nodes come into the file that were to come later."""
        with self.file.open("a") as file:
            file.write(self._later)

    def start(self) -> None:
        """Starts it and waits until it says that it is up."""
        with self.log_file.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zim", "up", *self.options, str(self.file)],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )
        process, seen = self.process, len(self.log)
        wait_until(lambda: "test is up" in self.log[seen:] or process.poll() is not None, "the fabric is up")
        assert process.poll() is None, self.log

    @property
    def log(self) -> str:
        """All that its processes have written."""
        return self.log_file.read_text(errors="replace")

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            wait_until(lambda: self.process and self.process.poll() is not None, "the fabric has stopped")
        finally:
            for child in self.children():
                child.kill()
            self.process.kill()
        return self.process.wait()

    def kill_all(self) -> None:
        """kill -9 of everything, in no order, as when the power fails."""
        assert self.process
        processes = [psutil.Process(self.process.pid), *self.children()]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, WAIT_S)
        self.process.wait()

    def children(self) -> list[psutil.Process]:
        """The processes of its nodes."""
        assert self.process
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def pid(self, name: str) -> int:
        """The process that runs a node now; 0 if none does."""
        for child in self.children():
            try:
                if name in child.cmdline():
                    return child.pid
            except psutil.Error:
                continue
        return 0

    def kill(self, name: str, how: int = signal.SIGKILL) -> int:
        """Sends a node a signal; returns the pid that it had."""
        pid = self.pid(name)
        assert pid, f"{name} does not run"
        os.kill(pid, how)
        return pid

    # -- what a backend does

    def push(self, document: dict[str, Any], key: str = "", logic: str = "logic-1") -> tuple[int, Any]:
        """`POST /api/push`: status and answer."""
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        return self.request("POST", "/api/push", json.dumps(document, separators=(",", ":")), logic, headers=headers)

    def get(self, path: str, logic: str = "logic-1") -> Any:
        """GETs, and returns the JSON answer to what must be right."""
        status, answer = self.request("GET", path, logic=logic)
        assert status == 200, answer
        return answer

    def post(self, path: str, body: bytes | str = b"", logic: str = "logic-1", timeout_s: float = WAIT_S) -> Any:
        """POSTs, and returns the JSON answer."""
        return self.request("POST", path, body, logic, timeout_s)[1]

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str = b"",
        logic: str = "logic-1",
        timeout_s: float = WAIT_S,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status, and the JSON answer or the text."""
        status, text = _request(self.http[logic], method, path, body, timeout_s, headers)
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def metrics(self, name: str) -> str:
        """What a node tells of itself at its `admin` address."""
        status, text = _request(self.admin[name], "GET", "/metrics", b"", WAIT_S)
        assert status == 200, text
        return text

    def count(self, kind: str, logic: str = "logic-1") -> dict[int, int]:
        """`{id: sessions}` of `/1/count`."""
        rows = self.request("GET", f"/1/count?type={kind}", logic=logic)[1]["data"]
        key = "RoomId" if kind == "room" else "Server"
        return {row[key]: row["Count"] for row in rows}


def _request(
    address: str,
    method: str,
    path: str,
    body: bytes | str,
    timeout_s: float,
    headers: dict[str, str] | None = None,
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def _toml(keys: dict[str, Any]) -> list[str]:
    return [f"{k} = {_value(v)}" for k, v in keys.items()]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return "{ " + ", ".join(_toml(value)) + " }" if isinstance(value, dict) else json.dumps(value)


@contextmanager
def running(folder: Path | None = None, **kwargs: Any) -> Iterator[Fabric]:
    """A fabric that runs for the length of a block. If the block fails, its log is in the failure."""
    with tempfile.TemporaryDirectory() as scratch:
        fabric = Fabric(folder or Path(scratch), **kwargs)
        try:
            fabric.start()
            yield fabric
        except BaseException as e:
            e.add_note(f"the fabric's log:\n{fabric.log[-6000:]}")
            raise
        finally:
            try:
                for client in list(Client.open):
                    client.close()
            finally:
                if fabric.process:
                    fabric.stop()


class Client:
    """A goim v1 client on a raw socket: what it may say, and all that it is told.

    Attributes:
        version: of the packets that it sends.
        packets: all that came, after the auth reply.
        is_closed: the server has closed.
        close_code: of a WebSocket close frame, else 0.
    """

    version = 1
    open: ClassVar[set[Client]] = set()  # all that nobody has closed

    def __init__(
        self,
        address: str,
        token: str | None = "7",
        is_ws: bool = False,
        tls: ssl.SSLContext | None = None,
        source: str = "127.0.0.1",
        headers: str = "",
        first: bytes = b"",
    ) -> None:
        """Connects, and if there is a token waits for the auth reply.

        Args:
            tls: whom it believes; None without TLS. The server is localhost.
            source: the address that it comes from.
            headers: more of them with the upgrade, each with its end.
            first: bytes before anything else.
        """
        host, port = address.rsplit(":", 1)
        plain = socket.create_connection((host, int(port)), timeout=WAIT_S, source_address=(source, 0))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.sendall(first)
        self.socket = plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost")
        self._headers = headers
        self.is_ws = is_ws
        self.packets: list[Packet] = []
        self.is_closed = False
        self.close_code = 0
        self.close_reason = ""
        self._cut = FrameReader(1 << 26, is_server=False) if is_ws else TcpReader(1 << 26, extended=True)
        rest = self._upgrade(address) if is_ws else b""
        self.socket.settimeout(None)
        self._reader = gevent.spawn(self._read, rest)
        Client.open.add(self)
        if token is not None:
            self.say(Op.AUTH, token.encode(), seq=1)
            reply = self.wait(1)[0]
            assert reply.op == Op.AUTH_REPLY, reply
            self.packets.clear()

    def _upgrade(self, address: str) -> bytes:
        """What has come after the answer."""
        self.socket.sendall(
            b"GET /sub HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
            % (address.encode(), self._headers.encode())
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self.socket.recv(4096)
            assert data, f"no upgrade: {answer!r}"
            answer += data
        head, rest = answer.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return rest

    def send(self, data: bytes) -> None:
        """Raw bytes. A server that has closed is no error here."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.is_closed = True

    def frame(self, body: bytes, opcode: int = 1, is_masked: bool = True, fin: bool = True) -> None:
        """One WebSocket frame."""
        data = encode_frame(opcode, body, b"\1\2\3\4" if is_masked else b"")
        self.send(data if fin else bytes([data[0] & 0x7F]) + data[1:])

    def say(self, op: int, body: bytes = b"", seq: int = 0) -> None:
        """One packet in this client's dialect. On WebSocket the body is raw JSON."""
        if self.is_ws:
            self.frame(b'{"ver":%d,"op":%d,"seq":%d,"body":%b}' % (self.version, op, seq, body or b"null"))
        else:
            self.send(frame.encode(Packet(op, seq, self.version, body)))

    def _read(self, rest: bytes) -> None:
        try:
            self.hear(rest)
            while data := self.socket.recv(65536):
                self.hear(data)
        except OSError:
            pass
        self.is_closed = True

    def pause(self) -> None:
        """Reads nothing more, until it goes on."""
        self._reader.kill()

    def go_on(self) -> None:
        """Reads again."""
        self._reader = gevent.spawn(self._read, b"")

    def hear(self, data: bytes) -> None:
        """Takes what the server has said."""
        for said in self._cut.receive(data):
            match said:
                case Packet():
                    self.packets.append(said)
                case websocket.Text(body):
                    for p in json.loads(body):
                        text = json.dumps(p["body"], separators=(",", ":"), ensure_ascii=False).encode()
                        place = p.get("stream", ""), p.get("offset", 0)
                        self.packets.append(Packet(p["op"], p["seq"], p["ver"], text, *place))
                case websocket.Close(code, reason):
                    self.close_code, self.close_reason = code, reason
                case websocket.Pong(body):
                    self.packets.append(Packet(-websocket.PONG, 0, 0, body))
                case _:
                    raise AssertionError(f"a server says {said}")

    def wait(self, count: int, timeout_s: float = WAIT_S) -> list[Packet]:
        """The packets so far, once there are that many."""
        wait_until(
            lambda: len(self.packets) >= count or self.is_closed, f"{count} packets, not {self.packets}", timeout_s
        )
        assert len(self.packets) >= count, f"closed ({self.close_code} {self.close_reason}) with {self.packets}"
        return self.packets

    def wait_closed(self, timeout_s: float = WAIT_S) -> int:
        """Waits until the server closes; returns the close code."""
        wait_until(lambda: self.is_closed, "the server closes", timeout_s)
        return self.close_code

    @property
    def bodies(self) -> list[bytes]:
        """Bodies of all pushes so far."""
        return [p.body for p in self.packets if p.op == Op.PUSH]

    def close(self) -> None:
        """Hangs up."""
        Client.open.discard(self)
        self._reader.kill()
        self.socket.close()

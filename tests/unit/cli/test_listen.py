"""`zim listen`: what it prints and exits with."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner, Result
from websockets.sync.server import ServerConnection

from tests.unit.client.comet import Fabric, tcp_comet, ws_comet
from tests.unit.client.listening import wait_ws_closed, ws_log_in
from tests.unit.client.peers import WAIT_S, Connection, TcpPeer, packet, ws_peer
from zim.cli.listen import listen
from zim.program import zim_command


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No topology.toml in the working directory."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    """Runs the command."""
    return CliRunner().invoke(listen, arguments)


def run_goim(*arguments: str) -> Result:
    """Runs the command for goim's protocol."""
    return run("--goim", *arguments)


def pushing(*bodies: bytes) -> Callable[[Connection], None]:
    """A script that lets the client in and pushes these."""

    def script(peer: Connection) -> None:
        peer.log_in()
        peer.socket.sendall(b"".join(packet(5, body) for body in bodies))
        peer.wait_closed()

    return script


def test_bodies_go_to_stdout_and_states_to_stderr() -> None:
    with TcpPeer(pushing(b"1", b"\xff\x00", b"")) as peer:
        result = run_goim("--uid", "7", "--tcp", peer.address, "--count", "3")
    assert (result.stdout_bytes, result.exit_code) == (b"1\n\xff\x00\n\n", 0)
    assert result.stderr == f"connected to {peer.address}\n"


def test_json() -> None:
    with TcpPeer(pushing(b'{"a":[1]}', b"text", b"\xff")) as peer:
        result = run_goim("--token", "x", "--address", peer.address, "--count", "3", "--json")
    lines = list(map(json.loads, result.stdout.splitlines()))
    assert [(line["op"], line.get("body")) for line in lines] == [(5, {"a": [1]}), (5, "text"), (5, None)]
    assert lines[2]["base64"] == "/w=="
    assert all(line["received_at"].endswith("Z") for line in lines)


def test_websocket() -> None:
    def script(connection: ServerConnection) -> None:
        assert ws_log_in(connection) == 7
        connection.send('[{"ver":0,"op":5,"seq":0,"body":{"a":1}}]')
        wait_ws_closed(connection)

    with ws_peer(script) as address:
        result = run_goim("--uid", "7", "--ws", "--address", address, "--count", "1")
    assert (result.stdout, result.exit_code) == ('{"a":1}\n', 0)


def test_goim_it_comes_back_and_says_so() -> None:
    def script(peer: Connection) -> None:
        peer.log_in()
        peer.send(5, b"%d" % peer.number)
        if peer.number:
            peer.wait_closed()

    with TcpPeer(script) as peer:
        result = run_goim("--uid", "7", "--tcp", peer.address, "--count", "2")
    assert result.stdout == "0\n1\n"
    connected, lost, again = result.stderr.splitlines()
    assert connected == again == f"connected to {peer.address}"
    assert lost.startswith(f"lost {peer.address}: closed by the server; again in 0.")


def test_the_comet_of_a_topology() -> None:
    with TcpPeer(pushing(b"1")) as peer:
        Path("topology.toml").write_text(
            "[fabric]\nname = 'x'\ndata_dir = 'var'\n[[router]]\nid = 1\nbind = 'tcp://127.0.0.1:1'\n"
            "[[logic]]\nid = 1\nbind = 'tcp://127.0.0.1:2'\nhttp = '127.0.0.1:6'\n"
            "[[job]]\nid = 1\nbind = 'tcp://127.0.0.1:3'\n"
            f"[[comet]]\nid = 1\nbind = 'tcp://127.0.0.1:4'\ntcp = '{peer.address}'\n"
        )
        assert run_goim("--uid", "7", "--count", "1").stdout == "1\n"
    refused = run_goim("--uid", "7", "--ws")
    assert refused.exit_code == 1
    assert "no comet listens for ws; leave out --ws" in refused.stderr


@pytest.mark.parametrize(
    ("bodies", "more", "code"),
    [((), (), 1), ((b"1",), ("--count", "2"), 1), ((b"1",), (), 0), ((b"1", b"2"), ("--count", "2"), 0)],
)
def test_timeout(bodies: tuple[bytes, ...], more: tuple[str, ...], code: int) -> None:
    with TcpPeer(pushing(*bodies)) as peer:
        result = run_goim("--uid", "7", "--tcp", peer.address, "--timeout", "0.5", *more)
    assert result.exit_code == code
    assert result.stdout == "".join(f"{body.decode()}\n" for body in bodies)


def test_nothing_listens_until_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    result = run_goim("--uid", "7", "--tcp", address, "--timeout", "0.1")
    assert result.exit_code == 1
    why = f"nothing listens on {address}; is the fabric up? {zim_command()} up; again in"
    assert f"cannot reach {address}: {why}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "give --uid, --token or --token-file"),
        (("--uid", "7", "--goim", "--verbose"), 2, "goim has no streams"),
        (("--uid", "7", "--room", "x" * 300), 1, "no room can be called"),
        (("--uid", "7", "--token", "7"), 2, "give one of --uid, --token and --token-file"),
        (("--uid", "7", "--ws", "--tcp", "a:1"), 2, "leave out --ws"),
        (("--uid", "7", "--tcp", "a:1", "--topology", "t"), 2, "leave out --topology"),
        (("--uid", "7", "--address", "nowhere"), 1, "write host:port"),
        (("--uid", "7", "--topology", "none.toml"), 1, "there is no such file"),
        (("--token-file", "none"), 1, "none cannot be read: No such file or directory; "),
        (("--token-file", "none"), 1, "zim token make USER > none"),
        (("--token-file", "/dev/null"), 1, "/dev/null is empty; "),
        (("--uid", "7", "--count", "0"), 2, "--count"),
        (("--uid", "7", "--timeout", "nan"), 2, "nan is no length of time"),
    ],
)
def test_what_is_wrong_on_the_command_line(arguments: tuple[str, ...], code: int, text: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr


EXPIRED = b'{"reason":"token expired: the token expired 9 s ago","code":4205}'


def test_an_api_key_is_no_token() -> None:
    Path("app.key").write_text("zim_abcdefghijklmnopqrstuvwx")
    result = run_goim("--token-file", "app.key")
    assert result.exit_code == 1
    assert "app.key has an API key, which is a backend's; right is a user's token; " in result.stderr
    assert "abcdefg" not in result.stderr


def test_a_token_that_has_expired() -> None:
    Path("my token").write_text("x")

    def refuse(peer: Connection) -> None:
        peer.receive()
        peer.socket.sendall(packet(6, EXPIRED))

    with TcpPeer(refuse) as peer:
        result = run_goim("--token-file", "my token", "--tcp", peer.address, "--timeout", "0.1")
    assert "zim token make USER > 'my token'; again in " in result.stderr
    with TcpPeer(refuse) as peer:
        result = run_goim("--token", "x", "--tcp", peer.address)
    assert result.exit_code == 1
    assert "zim listen: the server says: token expired: the token expired 9 s ago; " in result.stderr
    assert result.stderr.endswith("zim token make USER\n")
    assert "function" not in result.stderr


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program itself."""
    command = [sys.executable, "-m", "zim", "listen", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            yield process
        finally:
            process.kill()


def read(stream: IO[bytes] | None) -> bytes:
    """All of it."""
    assert stream is not None
    return stream.read()


def test_ctrl_c_is_quiet_and_is_heard_while_the_loop_goes_to_sleep() -> None:
    """The last line is printed just before that. With a loop that no signal wakes one of these in ten went on."""
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            peer = stack.enter_context(TcpPeer(pushing(b"1")))
            process = stack.enter_context(program("--goim", "--uid", "7", "--tcp", peer.address))
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_S) == 130
            assert read(process.stderr) == f"connected to {peer.address}\n".encode()


def test_a_reader_that_goes_away_is_no_error() -> None:
    def talkative(peer: Connection) -> None:
        peer.log_in()
        with contextlib.suppress(OSError):
            while True:
                peer.send(5, b"x" * 1000)

    with TcpPeer(talkative) as peer, program("--goim", "--uid", "7", "--tcp", peer.address) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WAIT_S) == 0
        assert read(process.stderr) == f"connected to {peer.address}\n".encode()


def test_a_terminal_gets_no_control_characters() -> None:
    """What a pipe gets as it is, see above, is escaped where it could move the cursor."""
    ours, its = pty.openpty()
    command = [sys.executable, *["-m", "zim", "listen", "--goim", "--uid", "7", "--count", "1", "--tcp"]]
    try:
        with TcpPeer(pushing(b"\x1b[2J\xff\nx")) as peer:
            done = subprocess.run(
                [*command, peer.address], stdout=its, stderr=subprocess.PIPE, timeout=WAIT_S, check=True
            )
        assert os.read(ours, 100) == b"\\x1b[2J\\xff\\nx\r\n"
    finally:
        os.close(its)
        os.close(ours)
    assert done.stderr == f"connected to {peer.address}\n".encode()


@pytest.mark.parametrize("uid", ["abc", "-1", "1.5", "", "9" * 20, "٣"])
def test_a_uid_is_a_number(uid: str) -> None:
    result = CliRunner().invoke(listen, ["--uid", uid])
    assert result.exit_code == 2
    assert "a uid is a number from 0 on" in result.stderr


def test_zims_own_protocol_is_the_default() -> None:
    fabric = Fabric()
    fabric.push("u:7", b'{"a":1}', b"\xff")
    with tcp_comet(fabric) as address:
        result = run("--uid", "7", "--tcp", address, "--count", "2")
    assert (result.stdout_bytes, result.exit_code) == (b'{"a":1}\n\xff\n', 0)
    assert result.stderr == f"connected to {address}\n"
    assert fabric.cursors == {}


def test_verbose_tells_the_place_and_json_too() -> None:
    fabric = Fabric()
    fabric.push("u:7", b'{"a":1}')
    with tcp_comet(fabric) as address:
        assert run("--uid", "7", "--tcp", address, "--count", "1", "-v").stdout == 'u:7 1 {"a":1}\n'
        (line,) = run("--uid", "7", "--tcp", address, "--count", "1", "--json").stdout.splitlines()
    found = json.loads(line)
    assert found["received_at"]
    assert {**found, "received_at": ""} == {"op": 5, "body": {"a": 1}, "received_at": "", "stream": "u:7", "offset": 1}


def test_ack_prints_once_for_all() -> None:
    fabric = Fabric()
    fabric.push("u:7", b"1", b"2", b"3")
    with tcp_comet(fabric) as address:
        assert run("--uid", "7", "--tcp", address, "--count", "2", "--ack").stdout == "1\n2\n"
        assert run("--uid", "7", "--tcp", address, "--count", "1").stdout == "3\n"


def test_rooms_that_are_named_and_several_addresses_over_websocket() -> None:
    fabric = Fabric()
    fabric.forbidden = {"x"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"127.0.0.1:{server.getsockname()[1]}"
    with ws_comet(fabric) as url:
        address = url.removeprefix("ws://")
        fabric.push("u:7", b"1")
        arguments = ("--ws", "--address", nobody, "--address", address, "--room", "x", "--room", "y")
        result = run("--uid", "7", *arguments, "--count", "1")
    assert fabric.auths[0]["rooms"] == ["x", "y"]
    unreachable, connected, *losses = result.stderr.splitlines()
    assert unreachable.startswith(f"cannot reach ws://{nobody}: nothing listens")
    assert connected == f"connected to ws://{address}"
    assert losses == ["nothing of r:x comes: not allowed"]
    assert result.stdout == "1\n"


def test_what_could_not_be_recovered_goes_to_stderr() -> None:
    def script(peer: Connection) -> None:
        _, _, seq = peer.receive()
        lost = {"epoch": "e", "offset": 9, "recovered": False}
        peer.send(8, json.dumps({"key": "7_1", "heartbeat_s": 9, "streams": {"u:7": lost}}).encode(), seq, 3)
        for reason, low, high in (("trimmed", 10, 12), ("\x1b[2J", 13, 13), ("epoch", 0, 3)):
            gap = {"stream": "u:7", "epoch": reason, "from": low, "to": high, "reason": reason}
            peer.send(26, json.dumps(gap).encode(), 0, 3)
        body = b"\0\0\0\0\0\0\0\4u:7x"
        peer.socket.sendall(struct.pack(">ihhii", 16 + len(body), 27, 3, 5, 0) + body)
        peer.wait_closed()

    with TcpPeer(script) as peer:
        result = run("--uid", "7", "--tcp", peer.address, "--count", "1")
    assert result.stdout == "x\n"
    assert result.stderr.splitlines()[1:] == [
        "could not recover u:7: what was not acknowledged, up to 9, is gone; it goes on after 9",
        "could not recover u:7: messages 10 to 12 will not come (trimmed)",
        r"could not recover u:7: messages 13 to 13 will not come (\x1b[2J)",
        "could not recover u:7: it has another history now, which goes on after 3",
    ]


@pytest.mark.parametrize(
    ("epoch", "offset", "says"),
    [
        ("e1", 9, "messages 6 to 9 are gone; it goes on after 9"),
        ("e1", 2, "what came after 5 is gone; it goes on after 2"),
        ("e2", 9, "what came after 5 is gone, and it has another history now; it goes on after 9"),
    ],
)
def test_what_is_gone_after_a_loss_is_told_in_numbers(epoch: str, offset: int, says: str) -> None:
    starts = [{"epoch": "e1", "offset": 5, "recovered": True}, {"epoch": epoch, "offset": offset, "recovered": False}]

    def script(peer: Connection) -> None:
        _, auth, seq = peer.receive()
        start = starts.pop(0)
        peer.send(8, json.dumps({"key": "7_1", "heartbeat_s": 9, "streams": {"u:7": start}}).encode(), seq, 3)
        if not starts:
            assert json.loads(auth)["resume"] == {"u:7": ["e1", 5]}
            body = (offset + 1).to_bytes(8) + b"u:7x"
            peer.socket.sendall(struct.pack(">ihhii", 16 + len(body), 27, 3, 5, 0) + body)
            peer.wait_closed()

    with TcpPeer(script) as peer:
        result = run("--uid", "7", "--tcp", peer.address, "--count", "1")
    assert f"could not recover u:7: {says}" in result.stderr.splitlines()


def test_a_host_that_does_not_exist() -> None:
    result = run("--uid", "7", "--tcp", "nowhere.invalid:1", "--timeout", "0.5")
    assert result.exit_code == 1
    assert result.stderr.startswith("cannot reach nowhere.invalid:1: cannot find nowhere.invalid: ")
    assert "Errno" not in result.stderr


def test_goims_answer_to_zims_own_protocol_is_explained() -> None:
    with TcpPeer(pushing(b"1")) as peer:
        result = run("--uid", "7", "--tcp", peer.address, "--timeout", "0.2")
    assert "not of version 3" in result.stderr
    assert "--goim" in result.stderr

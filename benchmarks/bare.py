"""What the kernel alone costs here: one process, one non-blocking send() for each message and client, nothing else.

Its CPU per send is the yardstick for a comet's CPU per delivery, which gathering may push below it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

from benchmarks.crowd import Crowd, raise_open_files
from benchmarks.fabric import BenchmarkError
from benchmarks.publisher import make_body
from zim.protocol.frame import HEADER_BYTES, Op, Packet, encode

_TIMEOUT_S = 30.0
_MAX_SENDS = 200_000
_MAX_SENDS_PER_S = 100_000


def bare_send_us(subscribers: int, rate: float, size: int) -> float:
    """CPU microseconds of one send() to one of so many TCP clients, at that rate; at most 200,000 of them.

    Raises:
        BenchmarkError: something went wrong.
    """
    # A rate that one send() for each message cannot keep up with must not fill the sockets, which would be cheaper.
    rate = min(rate, _MAX_SENDS_PER_S / subscribers)
    arguments = [subscribers, rate, max(1, min(round(rate * 2), _MAX_SENDS // subscribers)), size]
    command = [sys.executable, "-m", "benchmarks.bare", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            crowd = Crowd([process.stdout.readline().decode().strip()], "tcp", sample=1)
            try:
                crowd.connect(subscribers)
                while len(crowd.lost) < subscribers:
                    crowd.poll(1.0)
            finally:
                crowd.close()
            result = json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:
            raise BenchmarkError(f"the bare sender failed: {error}") from None
        finally:
            process.kill()
    if crowd.received != result["sent"]:
        raise BenchmarkError(f"the bare sender sent {result['sent']} messages and {crowd.received} arrived")
    return float(result["cpu_s"] / max(1, result["sent"]) * 1e6)


def serve(subscribers: int, rate: float, pushes: int, size: int) -> None:
    """Lets so many clients in, sends them everything, hangs up, prints what it cost."""
    raise_open_files(subscribers + 50)
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        print(f"127.0.0.1:{server.getsockname()[1]}", flush=True)
        clients = [_let_in(server) for _ in range(subscribers)]
    sent, cpu_s, started = 0, 0.0, time.monotonic()
    for number in range(pushes):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        data = encode(Packet(Op.PUSH, body=make_body(number, 0, size)))
        before = time.process_time()
        for client in clients:
            try:
                sent += client.send(data) == len(data)
            except BlockingIOError:
                continue
        cpu_s += time.process_time() - before
    for client in clients:
        client.close()
    print(json.dumps({"sent": sent, "cpu_s": cpu_s}), flush=True)


def _let_in(server: socket.socket) -> socket.socket:
    client, _ = server.accept()
    client.settimeout(_TIMEOUT_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.recv(HEADER_BYTES * 4)
    client.sendall(encode(Packet(Op.AUTH_REPLY, 1, 1)))
    client.setblocking(False)
    return client


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

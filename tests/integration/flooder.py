"""A program that sends the same bytes to a comet for ever, as fast as it can, and throws the answers away.

`python flooder.py HOST PORT GREETING PIECE TIMES`: the parts of the greeting, each of which is answered, with commas
between them, and what is sent so many times at once; in hex.
"""

import socket
import sys
import threading


def drain(sock: socket.socket) -> None:
    """Reads until the comet closes."""
    while sock.recv(1 << 20):
        pass


host, port, greeting, piece, times = sys.argv[1:]
flood = bytes.fromhex(piece) * int(times)
sock = socket.create_connection((host, int(port)))
for part in greeting.split(","):
    sock.sendall(bytes.fromhex(part))
    sock.recv(4096)
threading.Thread(target=drain, args=(sock,), daemon=True).start()
print("floods", flush=True)  # noqa: T201
while True:
    sock.sendall(flood)

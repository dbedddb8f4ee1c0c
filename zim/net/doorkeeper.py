"""Who may connect: libzmq asks, by ZAP (RFC 27), whenever somebody has shown a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import zmq.green as zmq
from zmq import curve_public
from zmq.utils import z85

_DOOR = "inproc://zeromq.zap.01"


def public_of(secret: str) -> str:
    """The public half of a secret link key, both in hexadecimal."""
    return bytes(z85.decode(curve_public(z85.encode(bytes.fromhex(secret))))).hex()


class Doorkeeper:
    """Answers libzmq when it asks who may connect. The process has one; it is there before anything is bound.

    libzmq asks by ZAP, over a socket of a fixed name in the same context. Only libzmq and this process reach it.
    """

    def __init__(self, decide: Callable[[Sequence[bytes]], Sequence[bytes] | None]) -> None:
        """
        Args:
            decide: gives the answer to a question, without envelope; None for none. Must not switch.
        """
        self._decide = decide
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_DOOR)

    def serve(self) -> None:
        """Answers for as long as the process lives. Switches: to wait."""
        while True:
            try:
                frames = self._socket.recv_multipart()
            except zmq.ZMQError:
                if self._socket.closed:
                    return
                raise
            asker, rest = frames[:1], frames[2:]  # the second one is empty
            answer = self._decide(rest)
            if answer is not None:
                with suppress(zmq.Again):  # nobody waits for it any more
                    self._socket.send_multipart([*asker, b"", *answer], zmq.NOBLOCK)

    def close(self) -> None:
        """Ends it: from now on nobody can connect."""
        self._socket.unbind(_DOOR)  # at once; closing alone lets go of the name a little later
        self._socket.close()

"""The links between nodes. The only importer of zmq.

What libzmq does by default is wrong for us in several places, each measured with 4.3.5 and noted at its option. Every
socket has one owner: one greenlet reads it, and sends never block.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

import zmq.green as zmq
from gevent.event import Event
from zmq.utils.monitor import recv_monitor_message

from zim.errors import NodeError
from zim.net.fairness import give_way
from zim.net.holders import in_use
from zim.net.names import host_and_port, is_same

MAX_MESSAGE_BYTES = 64 << 20  # from a peer; a push to very many users is the largest there is

_BUFFER_BYTES = 256 << 10
_HWM = 16  # counts messages, not bytes, and the kernel's buffers come on top: our own queues stand in front


def _socket(kind: int) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)  # else Ctrl-C hangs on what nobody will read
    socket.setsockopt(zmq.SNDHWM, _HWM)
    socket.setsockopt(zmq.RCVHWM, _HWM)
    socket.setsockopt(zmq.SNDBUF, _BUFFER_BYTES)
    socket.setsockopt(zmq.RCVBUF, _BUFFER_BYTES)
    # A cut link is noticed by the kernel. Not by ZMTP heartbeats: while a reader is slow and its pipe full, as after
    # SIGSTOP, they break healthy links, and their timer then aborts the process (libzmq issues 3937, 4364, 4767:
    # "Assertion failed: !_io_error"; seen with 4.3.5).
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.setsockopt(zmq.TCP_MAXRT, 3000)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    return socket


class _Link:
    """A socket and the greenlet that reads it.

    What comes is handed to a function. A loop over an iterator would keep the last message, which may be a large one,
    until the next one comes.
    """

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        self.endpoint = endpoint
        self._socket = socket

    def close(self) -> None:
        """Ends it; what has not left is dropped."""
        self._socket.close()

    def _receive(self, take: Callable[[list[bytes]], object]) -> None:
        """Hands over all that comes until it is closed, each as its frames. Switches: to wait, and to give way."""
        while (frames := self._next()) is not None:
            take(frames)
            del frames
            give_way()

    def _next(self) -> list[bytes] | None:
        try:
            return self._socket.recv_multipart()
        except zmq.ZMQError:
            if self._socket.closed:
                return None
            raise


def _refuse_taken(endpoint: str) -> None:
    """libzmq replaces whatever has the path of an `ipc://` address, also a socket that is served.

    Raises:
        NodeError: another process serves it, or it is no socket.
    """
    path = endpoint.removeprefix("ipc://")
    if path == endpoint or not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise NodeError(f"{endpoint} cannot be bound: {path} is there, and no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return  # whoever served it is gone
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EINPROGRESS):  # served, and its backlog is full
                raise NodeError(f"{endpoint} cannot be bound: {e.strerror}") from None
    raise NodeError(in_use("bind", endpoint))


class _Bound(_Link):
    def __init__(self, kind: int, endpoint: str) -> None:
        _refuse_taken(endpoint)
        super().__init__(_socket(kind), endpoint)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as e:
            self._socket.close()
            if e.errno == zmq.EADDRINUSE:
                raise NodeError(in_use("bind", endpoint)) from None
            raise NodeError(f"{endpoint} cannot be bound: {os.strerror(e.errno or 0)}") from None


class Inbox(_Bound):
    """PULL: takes what any number of Outlets send."""

    def __init__(self, endpoint: str) -> None:
        """Binds.

        Raises:
            NodeError: the endpoint is in use, or cannot be bound.
        """
        super().__init__(zmq.PULL, endpoint)

    def receive(self, take: Callable[[bytes], object]) -> None:
        """Hands over every message's frame, until it is closed. Switches."""
        self._receive(lambda frames: take(frames[-1]))


class Server(_Bound):
    """ROUTER: takes requests of any number of peers, and answers each where it came from.

    Attributes:
        dropped: answers that could not be sent: the peer is gone, or its pipe is full. It times out and asks again.
    """

    def __init__(self, endpoint: str) -> None:
        """Binds.

        Raises:
            NodeError: the endpoint is in use, or cannot be bound.
        """
        super().__init__(zmq.ROUTER, endpoint)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else an answer to nobody vanishes uncounted
        self.dropped = 0

    def receive(self, take: Callable[[tuple[bytes, ...], bytes], object]) -> None:
        """Hands over envelope and frame of every request, until it is closed. Switches.

        The envelope holds the empty frame of a REQ, so that it works too.
        """
        self._receive(lambda frames: take(tuple(frames[:-1]), frames[-1]))

    def send(self, envelope: tuple[bytes, ...], frame: bytes) -> bool:
        """Answers, or drops and counts. Never blocks: one full peer would hold up all others."""
        try:
            self._socket.send_multipart([*envelope, frame], zmq.NOBLOCK)
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            self.dropped += 1
            return False
        return True


class _Connecting(_Link):
    """A connecting socket that knows whether somebody is there.

    Attributes:
        is_connected: a peer has shaken hands and its link has not been seen to break. A peer that is stopped, or whose
            link is cut, still counts as connected until TCP_MAXRT ends, with something on its way to it.
        has_name: its address is a name, so it does nothing until `names.follow` says where to connect to.
    """

    def __init__(self, kind: int, endpoint: str) -> None:
        socket = _socket(kind)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # else it takes 1,000 messages for a peer that is not there
        super().__init__(socket, endpoint)
        self._is_up, self._is_down = Event(), Event()
        self._is_down.set()
        self._monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self.has_name = host_and_port(endpoint) is not None
        self._at = ""  # the number that stands for its name now
        if not self.has_name:
            socket.connect(endpoint)

    @property
    def is_connected(self) -> bool:
        return self._is_up.is_set()

    def connect_to(self, endpoint: str) -> None:
        """Gives its name the meaning of this number, unless it has it already. Does not switch."""
        if endpoint == self._at:
            return
        before, self._at = self._at, endpoint
        if before:
            with suppress(zmq.ZMQError):  # it is not connected, and libzmq may have let go of it
                self._socket.disconnect(before)
        self._socket.connect(endpoint)

    def wait(self, is_connected: bool, timeout_s: float | None = None) -> bool:
        """Waits until it is so, or the time is up; whether it is. Switches."""
        return bool((self._is_up if is_connected else self._is_down).wait(timeout_s))

    def watch(self) -> Iterator[bool]:
        """Follows the connection; yields each change of is_connected. Switches: to wait."""
        while True:
            event = recv_monitor_message(self._monitor)
            if self._at and not is_same(event["endpoint"].decode(), self._at):
                continue  # of a number that its name had before
            is_up = event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            now, before = (self._is_up, self._is_down) if is_up else (self._is_down, self._is_up)
            before.clear()
            now.set()
            yield is_up

    def send(self, frame: bytes) -> bool:
        """Sends, or says that it cannot: nobody is there, or the pipe is full. Does not switch."""
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        self._socket.disable_monitor()
        super().close()


class Outlet(_Connecting):
    """PUSH to one Inbox."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(zmq.PUSH, endpoint)


class Dealer(_Connecting):
    """DEALER to one Server. One a peer, so that the asker chooses whom to ask again."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(zmq.DEALER, endpoint)

    def receive(self, take: Callable[[bytes], object]) -> None:
        """Hands over every answer's frame, until it is closed. Switches."""
        self._receive(lambda frames: take(frames[-1]))

"""Pushes over ZeroMQ straight to a logic node, for backends in Python: many pushes are under way at once.

    with ZmqPublisher(["tcp://10.0.0.5:7176", "tcp://10.0.0.6:7176"]) as publisher:
        pending = [publisher.push(b"%d" % uid, users=uid) for uid in range(100_000)]
        publisher.flush()
        print(pending[0].result().push_id)

One thread (monkey-patched, one greenlet) owns the sockets. What is pushed while it is busy goes in one frame.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import secrets
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from typing_extensions import override
from zmq.utils.monitor import recv_monitor_message

from zim.client.address import list_addresses, split_address
from zim.client.checks import read_server_keys
from zim.client.errors import AddressError, PushUnavailable
from zim.client.http import check_key
from zim.client.pending import PendingPush
from zim.client.pipeline import MESSAGE_BYTES, Outcome, Pipeline, PushJob
from zim.client.pushes import Names, Push, make_submit
from zim.client.waiting import Waker
from zim.fabric.push import PUSH_OP
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError
from zim.protocol.messages import Submit

_FRAME_BYTES = 256 << 10
_BUFFER_BYTES = 256 << 10
_HWM = 16  # counts frames; what does not fit waits here
_MAX_WAIT_S = 1.0
_KNOCK_S = 1.0  # until a logic that has refused us is tried again
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


class ZmqPublisher:
    """Publishes to one logic node; to the next when that one is lost or does not answer. Threads may share it.

    Pushes to one stream stay in order as long as no attempt fails. A process that ends without `flush` loses what is
    under way.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        max_in_flight: int = 10_000,
        max_bytes: int = 64 << 20,
        answer_s: float = 6.0,
        retry_s: float = 15.0,
        api_key: str = "",
        server_key: str | Sequence[str] = "",
    ) -> None:
        """Connects in the background.

        Args:
            endpoints: of one logic or several, `publish` in the topology: `tcp://127.0.0.1:7176`.
            max_in_flight, max_bytes: how many pushes, and bytes of them, are under way at most; above it `push` waits.
            answer_s: after which time without an answer a push is sent again. Logic itself gives up after 5 s.
            retry_s: for how long a push that fails is tried again.
            api_key: who this is, `zim_…`; "" where none is needed. It goes with each frame, as it is.
            server_key: the public link key of the logic, 64 hexadecimal digits, as `zim link-key list` prints it; of
                several logics one each, in the order of the endpoints. "" where links have no keys. With it all is
                encrypted (CURVE), and goes to nobody else.

        Raises:
            AddressError: an endpoint is none.
            ClientError: the API key, or a server key, is none, or there are not as many of these as endpoints.
        """
        key = check_key(api_key).encode() if api_key else b""
        texts = list_addresses(endpoints, "tcp://127.0.0.1:7176")
        for text in texts:
            _check_endpoint(text)
        server_keys = read_server_keys(server_key, len(texts))
        self._max_in_flight, self._max_bytes = max_in_flight, max_bytes
        self._retry_s = retry_s
        self._prefix, self._numbers = secrets.token_hex(8), itertools.count(1)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._added: list[PushJob[PendingPush]] = []
        self._n_pending = self._n_bytes = self._n_waiting = 0
        self._is_awake = self._is_closed = False
        self._waker = Waker()
        try:
            self._owner = _Owner(texts, Pipeline(len(texts), answer_s), self._waker, key, server_keys)
        except zmq.ZMQError as error:
            self._waker.close()
            raise AddressError(f"cannot connect to {', '.join(texts)}: {error}") from None
        self._thread = threading.Thread(target=self._run, name="zim-publisher", daemon=True)
        self._thread.start()

    def __enter__(self) -> ZmqPublisher:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.flush()
        self.close()

    @property
    def in_flight(self) -> int:
        """How many pushes are not settled."""
        return self._n_pending

    def push(
        self,
        body: bytes | str,
        *,
        users: Names = (),
        rooms: Names = (),
        keys: Names = (),
        everybody: bool = False,
        op: int = PUSH_OP,
        ttl_s: float = 0.0,
        id: str = "",
    ) -> PendingPush:
        """Pushes, and does not wait for the answer; only for room, if too much is under way.

        The arguments are those of Push.

        Raises:
            PushRefused: it is for nobody, or a number or a name cannot be.
            PushUnavailable: the publisher is closed.
        """
        number = next(self._numbers)
        key = id or f"{self._prefix}-{number}"
        submit = make_submit(number, Push(body, users, rooms, keys, everybody, op, ttl_s), key)
        size = MESSAGE_BYTES + len(submit.body) + sum(map(len, submit.streams)) + sum(map(len, submit.only))
        pending = PendingPush(key, self._lock)
        job = PushJob(submit, pending, size, 0.0)
        with self._lock:
            while self._is_full(size) and not self._is_closed:
                self._n_waiting += 1
                self._changed.wait()
                self._n_waiting -= 1
            if self._is_closed:
                raise PushUnavailable("the publisher is closed", id=key)
            job.give_up_at = time.monotonic() + self._retry_s
            self._added.append(job)
            self._n_pending += 1
            self._n_bytes += size
            is_awake, self._is_awake = self._is_awake, True
        if not is_awake:
            self._waker.wake()
        return pending

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until it is known what became of everything. Says whether that was so in time."""
        with self._lock:
            self._n_waiting += 1
            is_done = self._changed.wait_for(lambda: self._n_pending == 0, timeout_s)
            self._n_waiting -= 1
        return is_done

    def close(self) -> None:
        """Ends it. What is not answered by now is settled as unknown, what was never sent as unavailable."""
        with self._lock:
            self._is_closed = True
            self._changed.notify_all()
        self._waker.wake()
        self._thread.join()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        owner = self._owner
        try:
            while not self._is_closed:
                with self._lock:
                    added, self._added = self._added, []
                    self._is_awake = bool(added)
                owner.pipeline.add(added)
                self._settle(owner.step(0.0 if added else _MAX_WAIT_S))
        finally:
            with self._lock:
                self._is_closed = True
                owner.pipeline.add(self._added)
                self._added = []
            self._settle(owner.close())
            with self._lock:
                self._changed.notify_all()
            self._waker.close()

    def _settle(self, settled: list[tuple[PushJob[PendingPush], Outcome]]) -> None:
        if not settled:
            return
        with self._lock:
            for job, outcome in settled:
                self._n_pending -= 1
                self._n_bytes -= job.size
                job.handle.settle(outcome)
            # Whoever waits for room is woken once there is a good deal of it, not for every single one.
            if self._n_waiting and self._n_pending * 2 <= self._max_in_flight and self._n_bytes * 2 <= self._max_bytes:
                self._changed.notify_all()

    def _is_full(self, size: int) -> bool:
        return self._n_pending >= self._max_in_flight or bool(
            self._n_pending and self._n_bytes + size > self._max_bytes
        )


class _Owner:
    """The sockets, one DEALER a node, so that the pipeline chooses whom to ask again; and the thread's one step."""

    def __init__(
        self,
        endpoints: Sequence[str],
        pipeline: Pipeline[PendingPush],
        waker: Waker,
        key: bytes,
        server_keys: Sequence[bytes],
    ) -> None:
        """server_keys: one for each endpoint, or none at all."""
        self.pipeline = pipeline
        self._endpoints = endpoints
        self._knock_at: dict[int, float] = {}
        self._waker, self._key = waker, key
        library = _library()
        self._context = library.Context()
        self._sockets: list[Any] = []
        self._monitors: list[Any] = []
        self._poller = _FilePoller() if library is not zmq else zmq.Poller()
        self._poller.register(waker.fileno(), zmq.POLLIN)
        self._rest: Callable[[], None] = (lambda: time.sleep(0)) if library is not zmq else (lambda: None)
        try:
            for node, endpoint in enumerate(endpoints):
                self._connect(endpoint, server_keys[node] if server_keys else b"")
        except zmq.ZMQError:
            self._destroy()
            raise

    def _connect(self, endpoint: str, server_key: bytes) -> None:
        socket = self._context.socket(zmq.DEALER)
        self._sockets.append(socket)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # else it takes messages for a peer that is not there
        socket.setsockopt(zmq.SNDHWM, _HWM)
        socket.setsockopt(zmq.SNDBUF, _BUFFER_BYTES)
        socket.setsockopt(zmq.RCVBUF, _BUFFER_BYTES)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        socket.setsockopt(zmq.TCP_MAXRT, 3000)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, 2000)  # as between nodes: the kernel would ask more and more seldom
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        socket.setsockopt(zmq.IPV6, 1)
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        if server_key:
            socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)
            public, secret = zmq.curve_keypair()  # of this connection: who we are says the API key
            socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        monitor = socket.get_monitor_socket(events | _REFUSED)
        self._monitors.append(monitor)
        self._poller.register(monitor, zmq.POLLIN)
        self._poller.register(socket, zmq.POLLIN)
        socket.connect(endpoint)

    def step(self, timeout_s: float) -> list[tuple[PushJob[PendingPush], Outcome]]:
        """Sends what can be sent, waits until something happens, and gives what is settled."""
        pipeline = self.pipeline
        self._send()
        now = time.monotonic()
        self._knock_again(now)
        wait_s = min(timeout_s, max(pipeline.next_at() - now, 0.0))
        ready = dict(self._poller.poll(math.ceil(wait_s * 1000)))
        self._rest()
        if self._waker.fileno() in ready:
            self._waker.clear()
        now = time.monotonic()
        settled: list[tuple[PushJob[PendingPush], Outcome]] = []
        for node, socket in enumerate(self._sockets):
            if socket in ready:
                settled += self._receive(node, now)
            if self._monitors[node] in ready:
                self._notice(node, now)
        return settled + pipeline.tick(now)

    def _send(self) -> None:
        pipeline = self.pipeline
        wants_to_write = -1
        while pipeline.can_send:
            socket = self._sockets[pipeline.node]
            submits: list[Submit] = []
            try:
                if socket.getsockopt(zmq.EVENTS) & zmq.POLLOUT:
                    submits = pipeline.take(_FRAME_BYTES, time.monotonic())
                    socket.send_multipart([self._key, codec.encode(submits)], zmq.NOBLOCK)
                    continue
            except zmq.Again:
                pipeline.untake(submits)
            wants_to_write = pipeline.node
            break
        for node, socket in enumerate(self._sockets):
            self._poller.modify(socket, zmq.POLLIN | (zmq.POLLOUT if node == wants_to_write else 0))

    def _receive(self, node: int, now: float) -> list[tuple[PushJob[PendingPush], Outcome]]:
        settled: list[tuple[PushJob[PendingPush], Outcome]] = []
        try:
            for _ in range(_HWM):
                frame = self._sockets[node].recv_multipart(zmq.NOBLOCK)[-1]
                try:
                    answers = codec.decode(frame, messages.ToPublisher)
                except CodecError:
                    continue  # whatever it was, what is not answered is sent again
                settled += self.pipeline.answered(node, answers, now)
        except zmq.Again:
            pass
        return settled

    def _notice(self, node: int, now: float) -> None:
        try:
            while True:
                event = recv_monitor_message(self._monitors[node], zmq.NOBLOCK)
                if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self.pipeline.connected(node)
                elif event["event"] & _REFUSED:
                    self._knock_at[node] = now + _KNOCK_S
                else:
                    self.pipeline.lost(node, now)
        except zmq.Again:
            return

    def _knock_again(self, now: float) -> None:
        """libzmq gives up for ever on a logic that refuses it, as one does whose links are not encrypted yet."""
        for node in [node for node, at in self._knock_at.items() if at <= now]:
            del self._knock_at[node]
            with contextlib.suppress(zmq.ZMQError):  # libzmq has let go of it
                self._sockets[node].disconnect(self._endpoints[node])
            self._sockets[node].connect(self._endpoints[node])

    def close(self) -> list[tuple[PushJob[PendingPush], Outcome]]:
        """Ends it; gives what became of what is still under way."""
        self._destroy()
        return self.pipeline.end()

    def _destroy(self) -> None:
        for socket in self._sockets:
            socket.disable_monitor()
            socket.close(0)
        for monitor in self._monitors:
            monitor.close(0)
        self._context.term()


class _FilePoller(zmq.Poller):
    """For greenlets. pyzmq's own green poller waits with select(), which cannot wait for files beyond 1023."""

    @override
    def poll(self, timeout: int | None = None) -> list[tuple[Any, int]]:
        """May come back early, with nothing. timeout: ms.

        **Switches.**
        """
        found = super().poll(0)
        if found or timeout == 0:
            return found
        files = select.poll()
        for socket, _ in self.sockets:  # a ZeroMQ socket's file becomes readable when anything has changed
            files.register(socket if isinstance(socket, int) else socket.getsockopt(zmq.FD), select.POLLIN)
        files.poll(timeout)
        return super().poll(0)


def _check_endpoint(text: str) -> None:
    scheme, _, rest = text.partition("://")
    if scheme == "tcp":
        split_address(rest)
    elif scheme != "ipc" or not rest:
        raise AddressError(f"{text!r} is not the endpoint of a logic node; write tcp://host:port")


def _library() -> Any:
    """pyzmq, or where threads are greenlets its green half."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from zmq import green

        return green
    return zmq

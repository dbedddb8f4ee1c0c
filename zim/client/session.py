"""What a client of zim's vocabulary knows and wants: packets in, events and packets out. No socket, no clock.

A session outlives its connections. On each: `begin` gives the auth packet, `logged_in` takes its reply, `receive` every
packet after that, `due` gives what is to be said. Positions make messages come once and in order: a stream's message
at or before its position is a repeat, and is dropped; each other one moves it. The fabric leaves numbers out where a
message is for others, so a jump is no loss; a loss is said in so many words, and never passed over.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zim.client.checks import check_resume, check_rooms
from zim.client.errors import ClientError
from zim.client.token import Token, TokenSource
from zim.client.values import Event, Gap, Message, NotJoined, NotRecovered, Position
from zim.fabric.limits import OFFSET
from zim.fabric.streams import is_user_stream, room_stream
from zim.protocol.errors import WireError
from zim.protocol.frame import VERSION, Op, Packet

log = logging.getLogger(__name__)

AUTH_SEQ = 1
PORTION_ROOMS, PORTION_BYTES = 500, 24 << 10  # of one packet; zim takes 1,000, and 64 kB


class ZimSession:
    """One user's streams. `join`, `leave`, `ack` and `resume` may be called by any thread.

    Attributes:
        heartbeat_s: within which time the fabric wants to hear something; 0 before it has said.
        key: this session's, as the fabric names it; "" before the first login.
        acknowledged: up to where the user's own stream is acknowledged, as far as the fabric has said.
        awaits_ack: an acknowledgement is on its way.
        is_due: `due` may have something.
        token: where tokens come from.
    """

    version = VERSION

    def __init__(
        self,
        token: Token,
        rooms: Iterable[str | int] | None = None,
        resume: Mapping[str, Sequence[Any]] | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        """About: more fields of the auth body.

        Raises:
            ClientError: a room, a position or a token that cannot be.
        """
        self.heartbeat_s = 0.0
        self.key = ""
        self.acknowledged = 0
        self.awaits_ack = False
        self.is_due = False
        self.token = TokenSource(token)
        self._has_warned = False  # that there is no next one
        self._about = dict(about or {})
        self._lock = threading.Lock()
        self._positions: dict[str, Position] = check_resume(resume or {})
        self._has_own_rooms = rooms is None  # the token's: the fabric names them
        self._joined = check_rooms(() if rooms is None else rooms)
        self._left: set[str] = set()
        self._ack = 0
        self._forget_connection()

    def _forget_connection(self) -> None:
        self._streams: set[str] = set()  # whose messages come
        self._asked: set[str] = set()  # rooms
        self._leaving: dict[int, set[str]] = {}  # seq of the request: streams
        self._refused: set[str] = set()  # streams that were asked for and do not come
        self._own = ""
        self._seq = AUTH_SEQ
        self._ack_asked = 0
        self.awaits_ack = False

    # ------------------------------------------------------------ what the application wants

    def join(self, rooms: Iterable[str | int], resume: Mapping[str, Sequence[Any]] | None = None) -> None:
        """Wants these rooms too. Raises: ClientError."""
        names, positions = check_rooms(rooms), check_resume(resume or {})
        with self._lock:
            self._joined |= names
            self._left -= names
            self._asked -= {name for name in names if room_stream(name) in self._refused}
            for stream, position in positions.items():
                self._positions.setdefault(stream, position)
            self.is_due = True

    def leave(self, rooms: Iterable[str | int]) -> None:
        """Wants these rooms no more: no message of them comes after this call. Raises: ClientError."""
        names = check_rooms(rooms)
        with self._lock:
            self._left |= names
            self._joined -= names
            self.is_due = True

    def ack(self, upto: Message | Gap | int) -> None:
        """Has handled the user's own stream up to here. What is of another stream or epoch counts for nothing."""
        offset = upto if isinstance(upto, int) else upto.offset if isinstance(upto, Message) else upto.to
        with self._lock:
            if isinstance(upto, int) or (upto.stream == self._own and upto.epoch == self._positions[self._own][0]):
                self._ack = max(self._ack, offset)
                self.is_due = True

    def resume(self) -> dict[str, Position]:
        """What one has of each stream."""
        with self._lock:
            return dict(self._positions)

    # ------------------------------------------------------------ one connection

    def begin(self, transport: str) -> Packet:
        """The auth packet of a new connection, of whatever transport. Raises: ClientError: there is no token."""
        token = self.token.take()
        with self._lock:
            self._forget_connection()
            for room in self._left:
                self._positions.pop(room_stream(room), None)
            auth: dict[str, Any] = {"token": token, **self._about}
            rooms, resume = self._portion(map(_room, self._positions) if self._has_own_rooms else self._joined)
            if not self._has_own_rooms:
                auth["rooms"], self._asked = rooms, set(rooms)
            resume |= {stream: at for stream, at in self._positions.items() if not _room(stream)}
            if resume:
                auth["resume"] = resume
        return _packet(Op.AUTH, AUTH_SEQ, auth)

    def logged_in(self, reply: Packet) -> list[Event]:
        """Takes the answer to `begin`.

        Raises:
            WireError: it is not one of version 3.
        """
        if not reply.body.strip() or reply.body == b"{}":
            raise WireError(
                "the answer to the login is not of version 3; for goim use a GoimListener, or zim listen --goim"
            )
        found = _object(reply)
        heartbeat_s, key = found.get("heartbeat_s"), found.get("key")
        if isinstance(heartbeat_s, bool) or not isinstance(heartbeat_s, int | float) or not 0 < heartbeat_s < 1e9:
            raise WireError("no heartbeat_s in the answer to the login")
        if not isinstance(key, str):
            raise WireError("no key in the answer to the login")
        self.heartbeat_s, self.key = float(heartbeat_s), key
        self.token.on_expires(found.get("expires_s"))
        streams = _mapping(found.get("streams"))
        with self._lock:
            self._asked |= set(map(_room, streams)) - {""}
            self._own = next(filter(is_user_stream, streams), "")
            self.is_due = True
            later = set(map(room_stream, self._joined - self._asked))
            missing = (set(self._positions) | set(map(room_stream, self._asked))) - set(streams) - later
        return self._subscribe(streams) + [NotJoined(stream, "the fabric did not join it") for stream in missing]

    def receive(self, packet: Packet) -> list[Event]:
        """Takes any packet after the login.

        Raises:
            WireError: it is not what it should be.
        """
        if packet.stream:
            return self._pushed(packet)
        if packet.op == Op.JOINED:
            streams = _mapping(_object(packet).get("streams"))
            if packet.seq == 0:
                self._take_given(streams)
            return self._subscribe({name: about for name, about in streams.items() if self._is_asked(name)})
        if packet.op == Op.LEFT:
            return self._unsubscribe(packet)
        if packet.op == Op.GAP:
            return self._missed(_object(packet))
        if packet.op == Op.ACKNOWLEDGED:
            for stream, offset in _object(packet).items():
                if stream == self._own:
                    self.acknowledged = _offset(offset)
            self.awaits_ack, self.is_due = False, True
        if packet.op == Op.REFRESHED:
            said = _object(packet)
            if "error" in said:
                self.token.again()
            else:
                self.token.on_expires(said.get("expires_s"))
        return []

    def refresh(self) -> Packet | None:
        """Shows another token, as the one before is about to end; nothing if the application has none yet."""
        self.token.next_at = None
        try:
            token = self.token.take()
        except ClientError as e:
            if not self._has_warned:
                log.warning("%s; it is asked again, and the session ends with the token that it has shown", e)
            self._has_warned = True
            self.token.again()
            return None
        self._has_warned = False
        with self._lock:
            return self._request(Op.REFRESH, {"token": token})

    def due(self) -> list[Packet]:
        """What is to be said now: rooms to join and to leave, one acknowledgement at a time."""
        requests = []
        with self._lock:
            self.is_due = False
            while joining := self._joined - self._asked:
                rooms, resume = self._portion(joining)
                requests.append(self._request(Op.JOIN, {"rooms": rooms, "resume": resume}))
                self._asked |= set(rooms)
            while leaving := self._left & self._asked:
                rooms, _ = self._portion(leaving)
                requests.append(self._request(Op.LEAVE, {"rooms": rooms}))
                self._leaving[self._seq] = set(map(room_stream, rooms))
                self._asked -= set(rooms)
            if self._own and not self.awaits_ack and self._ack > max(self._ack_asked, self.acknowledged):
                requests.append(self._request(Op.ACKNOWLEDGE, {self._own: self._ack}))
                self._ack_asked, self.awaits_ack = self._ack, True
        return requests

    def taken(self, event: Event) -> None:
        """The application is through with it: an own message, or gap, is acknowledged."""
        if isinstance(event, Message | Gap) and event.stream == self._own:
            self.ack(event)

    def ask_again(self) -> None:
        """An acknowledgement that has not been confirmed may be sent once more."""
        with self._lock:
            self._ack_asked, self.awaits_ack, self.is_due = 0, False, True

    # ------------------------------------------------------------ streams

    def _request(self, op: int, body: dict[str, Any]) -> Packet:
        self._seq += 1
        return _packet(op, self._seq, body)

    def _portion(self, rooms: Iterable[str]) -> tuple[list[str], dict[str, Position]]:
        """As many of these rooms as one packet carries, and what one has of them. The others go in the next."""
        taken: list[str] = []
        resume: dict[str, Position] = {}
        size = 0
        for room in sorted(filter(None, rooms))[:PORTION_ROOMS]:
            position = self._positions.get(room_stream(room))
            size += len(room.encode()) + (len(room.encode()) + len(position[0]) + 30 if position else 0)
            if taken and size > PORTION_BYTES:
                break
            taken.append(room)
            if position:
                resume[room_stream(room)] = position
        return taken, resume

    def _is_muted(self, stream: str) -> bool:
        return _room(stream) in self._left or any(stream in streams for streams in self._leaving.values())

    def _is_asked(self, stream: str) -> bool:
        """Whether it may be joined: a leave may have crossed the answer to a join."""
        is_open = stream in self._streams or stream in self._refused
        return is_open or _room(stream) in self._asked or self._is_muted(stream)

    def _take_given(self, streams: dict[str, Any]) -> None:
        """Rooms that a backend has put this session into. One that was left here is left again."""
        with self._lock:
            given = {_room(name) for name, about in streams.items() if "error" not in _mapping(about)} - {""}
            self._asked |= given
            self.is_due |= bool(given & self._left)

    def _pushed(self, packet: Packet) -> list[Event]:
        stream, offset = packet.stream, packet.offset
        if stream not in self._streams:
            raise WireError(f"a message of {stream!r}, which was not joined")
        if (self._left or self._leaving) and self._is_muted(stream):
            return []
        epoch, had = self._positions[stream]
        if offset <= had:
            return []
        self._positions[stream] = (epoch, offset)
        return [Message(stream, offset, epoch, packet.op, packet.body)]

    def _subscribe(self, streams: dict[str, Any]) -> list[Event]:
        events = []
        with self._lock:
            for stream, about in streams.items():
                event = self._start(stream, _mapping(about))
                if event is not None and not self._is_muted(stream):
                    events.append(event)
        return events

    def _start(self, stream: str, about: dict[str, Any]) -> Event | None:
        """From where on a stream's messages come; an event if that is not where one stopped."""
        if "error" in about:
            if stream in self._streams:
                return None  # "joined already"
            self._refused.add(stream)
            return NotJoined(stream, str(about["error"])[:200])
        now, had = (_epoch(about.get("epoch")), _offset(about.get("offset"))), self._positions.get(stream)
        self._streams.add(stream)
        self._refused.discard(stream)
        is_recovered = about.get("recovered") is True
        if had is None and is_recovered and stream == self._own:
            self.acknowledged = now[1]
        if had is not None and is_recovered and now[0] == had[0] and now[1] <= had[1]:
            return None
        self._move(stream, now)
        return None if is_recovered and had is None else NotRecovered(stream, had, now)

    def _missed(self, about: dict[str, Any]) -> list[Event]:
        stream, epoch, reason = about.get("stream"), _epoch(about.get("epoch")), about.get("reason")
        low, high = _offset(about.get("from")), _offset(about.get("to"))
        if not isinstance(stream, str) or stream not in self._streams:
            raise WireError("a gap in a stream that was not joined")
        with self._lock:
            had = self._positions[stream]
            if self._is_muted(stream) or (epoch == had[0] and high <= had[1]):
                return []
            if epoch == had[0]:
                low = max(low, had[1] + 1)
            self._move(stream, (epoch, high))
        return [Gap(stream, low, high, str(reason)[:200], epoch)]

    def _move(self, stream: str, now: Position) -> None:
        had = self._positions.get(stream)
        if stream == self._own and had is not None and had[0] != now[0]:
            self._ack = self._ack_asked = self.acknowledged = 0  # numbers of another history
        self._positions[stream] = now

    def _unsubscribe(self, packet: Packet) -> list[Event]:
        said = _object(packet)
        names, reason = said.get("streams"), said.get("reason")
        if not isinstance(names, list):
            raise WireError("no streams in the answer to a leave")
        with self._lock:
            left = self._leaving.pop(packet.seq, set())
            for stream in left:
                self._streams.discard(stream)
                self._positions.pop(stream, None)
            lost = [name for name in names if isinstance(name, str) and name in self._streams and name not in left]
            self._streams -= set(lost)
            self._asked -= {_room(stream) for stream in lost} - self._joined
        why = reason[:200] if isinstance(reason, str) else "the fabric left it"
        return [NotJoined(stream, why) for stream in lost]


def _room(stream: str) -> str:
    """The room of a room's stream; "" of another."""
    return stream[2:] if stream.startswith("r:") else ""


def _packet(op: int, seq: int, body: dict[str, Any]) -> Packet:
    return Packet(op, seq, VERSION, json.dumps(body, ensure_ascii=False).encode(errors="replace"))


def _object(packet: Packet) -> dict[str, Any]:
    try:
        found = json.loads(packet.body)
    except (ValueError, RecursionError):
        raise WireError(f"op {packet.op} with a body that is not JSON") from None
    return _mapping(found)


def _mapping(found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise WireError("something else where a JSON object should be")
    return found


def _epoch(found: object) -> str:
    if not isinstance(found, str):
        raise WireError("an epoch that is no string")
    return found


def _offset(found: object) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= OFFSET:
        raise WireError("an offset that is no number from 0 on")
    return found

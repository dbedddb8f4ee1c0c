"""What a client may: its token is shown to a logic, and the connection keeps to the grant that comes of it.

Joins are checked here, against the grant or by asking; so is what another token leaves of it. What nobody can tell is
asked again until somebody can. What a new grant does not cover any more ends. A grant that is over ends its session,
GRACE_S later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import gevent
from gevent.event import AsyncResult

from zim.fabric.grants import Denial, Grant, grant_problem
from zim.fabric.limits import ROOMS
from zim.fabric.refusals import Refusals
from zim.fabric.streams import EVERYBODY, is_stream, room_of, room_stream, user_stream
from zim.net.fairness import give_way
from zim.nodes.comet.connection import Connection
from zim.nodes.comet.deferred import DeferredJoins
from zim.nodes.comet.phases import Cause, Phase
from zim.nodes.comet.runner import CometRunner
from zim.nodes.effects import Effect
from zim.protocol.endings import Ending
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet
from zim.protocol.logins import AskJoin, Auth, Authed, MayJoin
from zim.protocol.vocabularies.base import Join, Leave, Login, Onward, Past, ReadHistory, Refresh, Resume, Start
from zim.protocol.vocabularies.goim import GOIM, is_zims
from zim.protocol.vocabularies.zim import NOT_ALLOWED, RETRYING, refusals

log = logging.getLogger(__name__)
audit = logging.getLogger("zim.audit")

GRACE_S = 25.0  # from the end of a grant to that of its session: for its client to show another token
AGAIN_S = 2.0  # until it is asked again what nobody could tell
AT_ONCE = 64  # clients whose rooms are asked about again at the same time

PER_SESSION = "rooms_per_session"  # of [limits]
UNTOLD = "nobody can tell at the moment; try again"
_ENDINGS = {"refused": Ending.REFUSED, "expired": Ending.EXPIRED, "try_again": Ending.TRY_AGAIN}


class _Verdict(NamedTuple):
    """Of rooms that a client wants to be in: those that it may be in; why not the others; of which nobody can tell."""

    allowed: tuple[str, ...]
    refused: list[Start]
    untold: Sequence[str] = ()


class Gate:
    """See the module. Methods switch, for others are asked, unless they say that they do not.

    Attributes:
        most_rooms: that a session may be in at once; 0 for as many as there can be.
        refusals: requests for more than that.
    """

    def __init__(self, runner: CometRunner, perform: Callable[[Iterable[Effect]], None]) -> None:
        """
        Args:
            perform: does what the runner returns.
        """
        self._runner, self._hub, self._perform = runner, runner.hub, perform
        self.most_rooms = 0
        self.refusals = Refusals((PER_SESSION,))
        self._deferred: DeferredJoins[Connection] = DeferredJoins()

    def log_in(self, connection: Connection, packet: Packet) -> None:
        """Its client has sent an auth packet.

        Raises:
            WireError: it is nobody; the connection is to be closed.
        """
        connection.speech = connection.speech.of_version(packet.version)
        login = connection.vocabulary.parse_login(packet.body)
        if self._runner.draining is not None:  # it was on its way in
            connection.close(Ending.DRAINED, onward=Onward())
            return
        cookie, connection.cookie = connection.cookie, b""
        if (why := self._hub.barred.reason(connection.host)) is not None:
            connection.close(Ending.BANNED, Ending.BANNED.because(why))
            return
        found = self._identify(connection, login.token or cookie, login.device)
        if found is None:
            connection.close(Ending.TRY_AGAIN)
            return
        if isinstance(found, Denial):
            self._deny(connection, found)
            return
        if found.user == "0" and connection.vocabulary is GOIM and is_zims(packet.body):
            hint = "an auth packet of zim's protocol has version 3"
            log.info("goim's user 0 has a token", extra={"client": connection.address, "hint": hint})
        if connection.on(Cause.IDENTIFIED) is not Phase.JOINING:
            return
        connection.device, connection.most = found.device, found.sessions
        connection.take(found, time.monotonic())
        verdict = _Verdict(found.rooms, [])
        if login.rooms is not None:
            verdict = self._allowed(connection, found.user, login.rooms)
        if connection.phase.is_over:
            return
        rooms, refused = self._settle(connection, verdict, login.resume)
        answered = connection.await_reply(packet, Login)
        self._perform(self._hub.join(connection, found.user, rooms, time.monotonic(), login.resume, refused))
        self._go_on_joining(connection)
        answered.wait()

    def join(self, connection: Connection, request: Join, seq: int) -> None:
        """Its client wants to be in more rooms.

        Raises:
            WireError: in too many.
        """
        self._deferred.take(connection, request.rooms)
        verdict = self._allowed(connection, connection.uid, request.rooms)
        if connection.phase.is_over:
            return
        rooms, refused = self._settle(connection, verdict, request.resume)
        if len(connection.rooms) + len(rooms) + len(self._deferred.of(connection)) > ROOMS:
            raise WireError(f"more than {ROOMS} rooms", ending=Ending.REQUEST)
        self._perform(self._hub.join_rooms(connection, rooms, seq, time.monotonic(), request.resume, refused))
        self._go_on_joining(connection)

    def leave(self, connection: Connection, request: Leave, seq: int) -> None:
        """Its client wants to be out of rooms."""
        self._deferred.take(connection, request.rooms)
        self._perform(self._hub.leave_rooms(connection, request.rooms, seq, time.monotonic()))

    def forget(self, connection: Connection) -> None:
        """It is over. Does not switch."""
        self._deferred.forget(connection)

    def ask_again(self) -> None:
        """Asks again about rooms of which nobody could tell. Runs for ever."""
        while True:
            gevent.sleep(AGAIN_S)
            left = len(self._deferred)
            while left > 0:
                some = self._deferred.next(min(left, AT_ONCE))
                left -= AT_ONCE
                asking = [gevent.spawn(self._ask_about, c) for c in some if c.phase is Phase.OPEN]
                gevent.joinall(asking)
                if asking and not any(one.value for one in asking):
                    break  # nobody can tell of others, either

    def _ask_about(self, connection: Connection) -> bool:
        """Asks for one of them; returns whether it was told. An error closes this connection and nothing else."""
        try:
            return self._join_deferred(connection)
        except Exception:
            log.exception("a connection failed", extra={"uid": connection.uid})
            connection.drop("failed")
            return False

    def _join_deferred(self, connection: Connection) -> bool:
        rights = connection.rights
        verdict = self._allowed(connection, connection.uid, tuple(self._deferred.of(connection)))
        told = {*self._deferred.of(connection)}.difference(verdict.untold)  # some may have been left meanwhile
        if connection.phase.is_over or not told:
            return False
        if connection.rights != rights:  # another token, meanwhile: it is asked once more
            return True
        resume = self._deferred.take(connection, told)
        allowed = tuple(room for room in verdict.allowed if room in told and room not in connection.rooms)
        refused = [start for start in verdict.refused if room_of(start.stream) in told]
        rooms = self._cut(connection, allowed, refused)
        if rooms or refused:
            self._perform(self._hub.join_rooms(connection, rooms, 0, time.monotonic(), resume, refused))
            self._go_on_joining(connection)
        return True

    def refresh(self, connection: Connection, request: Refresh, seq: int) -> None:
        """Its client shows another token. Rooms that it does not cover are left."""
        found = self._identify(connection, request.token, connection.device, is_refresh=True)
        if connection.phase.is_over:
            return
        if found is None or (isinstance(found, Denial) and found.code == "try_again"):
            why = UNTOLD if found is None else found.reason
            connection.refreshed(seq, why)
            return
        if isinstance(found, Denial):
            self._deny(connection, found)
            return
        if found.user != connection.uid:
            raise WireError("the token is another user's", ending=Ending.REFUSED)
        had, before = connection.rights, connection.rooms
        connection.take(found, time.monotonic())
        verdict = self._allowed(connection, connection.uid, before)
        if connection.phase.is_over:
            return
        lost = set(before) - {*verdict.allowed, *connection.given}
        if verdict.untold:
            lost = set(filter(had.may_join, lost))  # what the application has allowed stays, until it can tell
        if lost:
            log.info("rooms lost by a new token", extra={"key": connection.key, "rooms": len(lost)})
            self._perform(self._hub.leave_rooms(connection, list(lost), 0, time.monotonic()))
        connection.refreshed(seq)

    def read_history(self, connection: Connection, request: ReadHistory, seq: int) -> None:
        """Its client wants to see a stream's past: of those that it is in, and of those that its grant names."""
        if may_read(connection, request.stream):
            self._perform(self._hub.read_history(connection, request, seq, time.monotonic()))
        else:
            connection.tell_history(seq, Past(request.stream, error=NOT_ALLOWED))

    def tell_history(self, connection: Connection, past: Past, seq: int) -> None:
        """The past has come. Meanwhile its client may have lost the right to see it. Does not switch."""
        may = may_read(connection, past.stream)
        connection.tell_history(seq, past if may else Past(past.stream, error=NOT_ALLOWED))

    def give_up_history(self, connection: Connection, request: ReadHistory, seq: int) -> None:
        """Its router does not answer."""
        self._hub.histories.forget(connection, time.monotonic())
        connection.tell_history(seq, Past(request.stream, error=UNTOLD))

    def _settle(
        self, connection: Connection, verdict: _Verdict, resume: Resume | None
    ) -> tuple[tuple[str, ...], list[Start]]:
        """Which rooms its client will be in, and why not in the others. Rooms that wait count, too. Does not switch."""
        refused = list(verdict.refused)
        within = set(self._cut(connection, (*verdict.allowed, *verdict.untold), refused))
        waiting = [room for room in verdict.untold if room in within]
        self._deferred.put_off(connection, waiting, resume)
        refused += refusals(waiting, RETRYING)
        return tuple(room for room in verdict.allowed if room in within), refused

    def _cut(self, connection: Connection, rooms: tuple[str, ...], refused: list[Start]) -> tuple[str, ...]:
        """Of rooms that its client may be in, as many as one may be in at once. Does not switch.

        Args:
            refused: takes the others.
        """
        if not self.most_rooms:
            return rooms
        had = [*connection.rooms, *self._deferred.of(connection)]
        within = first_rooms(rooms, had, self.most_rooms)
        if len(within) < len(rooms):
            self.refusals.count(PER_SESSION, connection.address)
            taken = set(within)
            others = [room for room in dict.fromkeys(rooms) if room not in taken]
            refused += refusals(others, f"too many rooms: at most {self.most_rooms} at once")
        return within

    def _identify(
        self, connection: Connection, token: bytes, device: str, is_refresh: bool = False
    ) -> Grant | Denial | None:
        """Whose a token is; None if nobody can tell."""
        version = connection.vocabulary.version or 0
        found = self._ask(Auth(0, token, version, connection.host, device, connection.is_anonymous, is_refresh))
        if not isinstance(found, Authed) or (found.grant is None and found.denial is None):
            return None
        if found.grant is None:
            return found.denial
        if problem := grant_problem(found.grant):
            log.error("a grant that cannot be", extra={"problem": problem})
            return Denial("refused", "not a user")
        return found.grant

    def _deny(self, connection: Connection, denial: Denial) -> None:
        ending = Ending.TOO_OFTEN if denial.retry_ms else _ENDINGS[denial.code]
        fields = {"client": connection.address, "reason": denial.reason, "detail": denial.detail}
        audit.warning(ending.word, extra=fields)
        connection.close(ending, ending.because(denial.reason))

    def _allowed(self, connection: Connection, user: str, rooms: Sequence[str]) -> _Verdict:
        """Which of these rooms its client may be in. Logic is asked if need be."""
        rights = connection.rights
        may = [room for room in rooms if rights.may_join(room)]
        if len(may) == len(rooms):
            return _Verdict(tuple(rooms), [])
        allowed = set(may)
        others = tuple(dict.fromkeys(room for room in rooms if room not in allowed))
        why = NOT_ALLOWED
        if rights.asks:
            found = self._ask(AskJoin(0, user, connection.device, others))
            if not isinstance(found, MayJoin) or not found.is_told:
                return _Verdict(tuple(may), [], others)
            allowed.update(found.rooms)
            why = found.reason or NOT_ALLOWED
        refused = [room for room in others if room not in allowed]
        return _Verdict(tuple(room for room in rooms if room in allowed), refusals(refused, why))

    def _ask(self, question: Auth | AskJoin) -> Authed | MayJoin | None:
        ticket: AsyncResult[Authed | MayJoin | None] = AsyncResult()
        self._perform(self._runner.on_question(ticket, question, time.monotonic()))
        return ticket.get()

    def _go_on_joining(self, connection: Connection) -> None:
        """Others have their turn."""
        while self._hub.is_joining(connection):
            give_way()
            if self._hub.is_joining(connection):
                self._perform(self._hub.go_on_joining(connection, time.monotonic()))


def first_rooms(rooms: Sequence[str], had: Sequence[str], most: int) -> tuple[str, ...]:
    """Of rooms that are wanted, those that a session may be in at once: the first ones; and those that it is in."""
    there, found = set(had), list[str]()
    for room in rooms:
        if room not in there and len(there) >= most:
            continue
        there.add(room)
        found.append(room)
    return tuple(found)


def may_read(connection: Connection, stream: str) -> bool:
    """Whether its client may see a stream's past."""
    if not is_stream(stream):
        return False
    its_own = user_stream(connection.uid), EVERYBODY, *map(room_stream, connection.rooms)
    return stream in its_own or connection.rights.may_read(stream)

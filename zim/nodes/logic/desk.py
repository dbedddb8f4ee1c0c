"""Who may come in: shows each token to whoever can tell, and remembers who waits for the answer. Pure.

without a token            [anonymous], where the listener lets such people in
a JWT of a known issuer    its keys decide, and nobody else
anything else              [callout]; else it is denied
nothing of this is set     goim's handler believes everybody
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from zim.fabric.grants import ANONYMOUS, LIFETIME_S, Denial, Grant, grant_problem
from zim.fabric.limits import REASON_CHARS, TOKEN_BYTES
from zim.fabric.names import shown
from zim.fabric.pauses import Pause, no_pause
from zim.identity import goim
from zim.identity.keys import Key
from zim.identity.tokens import (
    Claim,
    Compact,
    fields_of,
    header_problem,
    look_at,
    read_claim,
    read_token,
    refused,
    shape_problem,
)
from zim.nodes.effects import ERROR, Effect, Note
from zim.nodes.logic.callouts import Caller, NoAnswer, Reply
from zim.nodes.logic.keysets import KID_BYTES, KeySet
from zim.nodes.logic.logging_in import LoginLimit
from zim.protocol.frame import VERSION
from zim.protocol.logins import AskJoin, Auth, Authed, MayJoin
from zim.protocol.message import Message
from zim.topology.identity import Callout, Identity

CACHE_S = 86_400.0  # for which an answer holds at most
WAITING = 10_000  # who wait for the keys of one issuer

_Seconds = Annotated[float, Meta(ge=0, le=CACHE_S)]


class FetchKeys(Effect, frozen=True):
    """GET the keys of an issuer."""

    keys: KeySet


class _Connected(Claim, frozen=True, forbid_unknown_fields=True):
    """What the application answers about a token: a user and what the user may, or a reason why not."""

    user: str | int | None = None
    reason: str = ""
    expires_s: Annotated[float, Meta(gt=0)] | None = None
    cache_s: _Seconds = 0.0


class _Joined(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the application answers about rooms: those that the user may be in, and why not in the others."""

    rooms: tuple[str, ...] = ()
    reason: str = ""
    cache_s: _Seconds = 0.0


class _Waiter(NamedTuple):
    """has_begun: its token has let the keys be fetched; else the fetch may be older than its key."""

    asker: Any
    m: Auth
    token: Compact
    has_begun: bool = False


class Desk:
    """One logic's.

    Attributes:
        admitted: how many tokens were somebody's; denied: how many were not, by code.
        often: who comes too often.
    """

    def __init__(self, identity: Identity, keys: Mapping[str, Sequence[Key]], new_id: Callable[[], str]) -> None:
        """
        Args:
            keys: of issuers that have no URL of them, by issuer.
            new_id: a name that nobody has had, for somebody without one.
        """
        self.admitted, self.often = 0, LoginLimit()
        self.denied = dict.fromkeys(("refused", "expired", "try_again"), 0)
        self._identity, self._new_id = identity, new_id
        self.issuers = {i.issuer: KeySet(i, keys.get(i.issuer, ())) for i in identity.issuers}
        self._waiting: dict[str, list[_Waiter]] = {}
        self._former: list[Caller[Any]] = []  # of earlier topologies, with questions that have not ended
        self._make_callers(identity.callout or Callout())

    def _make_callers(self, callout: Callout) -> None:
        self.connect = _caller("connect", callout.connect, callout, self._read_connected, _nobody_tells, _aged)
        self.join = _caller("join", callout.join, callout, _read_joined, _no_rooms, lambda found, _: found)

    def follow(self, identity: Identity, keys: Mapping[str, Sequence[Key]]) -> None:
        """The topology has changed. What is under way ends as it began.

        Args:
            keys: as at first, read anew.
        """
        before, had = self.issuers, self._identity.callout
        self._identity, self.issuers = identity, {}
        for issuer in identity.issuers:
            known = before.get(issuer.issuer)
            if known is None or not known.go_on_as(issuer):
                known = KeySet(issuer, keys.get(issuer.issuer, ()))
            self.issuers[issuer.issuer] = known
        if identity.callout != had:
            self._former = [caller for caller in (*self._former, self.connect, self.join) if caller.waiting]
            self._make_callers(identity.callout or Callout())

    # -- tokens

    def log_in(self, asker: Any, m: Auth, now: float, wall_s: float, out: list[Effect]) -> Authed | None:
        """The answer, if it is known at once; else it comes later.

        Args:
            asker: for whom it is.
            out: takes what is to be done.
        """
        found = self._identify(asker, m, now, wall_s, out)
        return None if found is None else self._answer(m, found, now)

    def _identify(self, asker: Any, m: Auth, now: float, wall_s: float, out: list[Effect]) -> Grant | Denial | None:
        identity = self._identity
        if not identity.knows_clients:
            return goim.identify(m.token, m.version != VERSION)
        token = m.token if m.version == VERSION else _unquoted(m.token)
        if not token:
            if identity.anonymous is not None and m.anonymous:
                free = identity.anonymous
                return Grant(ANONYMOUS + self._new_id(), free.rooms, free.join, free.read, "", 0, self._asks)
            return refused("a token is needed")
        if len(token) > TOKEN_BYTES:
            return refused(f"the token has {len(token)} bytes; right is at most {TOKEN_BYTES}")
        compact = look_at(token)
        if compact is not None and compact.issuer in self.issuers:
            return self._verify(_Waiter(asker, m, compact), now, wall_s, out)
        if identity.callout is not None and identity.callout.connect:
            return self._call(asker, m, token, now, out)
        if compact is None:
            return refused(shape_problem(token))
        return refused(f"the token's iss is {shown(compact.issuer)}, which is not known")

    def _verify(self, waiter: _Waiter, now: float, wall_s: float, out: list[Effect]) -> Grant | Denial | None:
        known = self.issuers[waiter.token.issuer]
        found = self._look_up(waiter.token, known, wall_s)
        if found is not None:
            return found
        waiting = self._waiting.setdefault(known.issuer.issuer, [])
        if len(waiting) >= WAITING or not known.fetch_for(waiter.token.kid, now):
            return _keyless(known)
        waiting.append(waiter._replace(has_begun=not known.is_fetching))
        self._fetch(known, now, out)
        return None

    def _look_up(self, token: Compact, known: KeySet, wall_s: float) -> Grant | Denial | None:
        """What the keys that are here say; None if the right one is not."""
        if (wrong := header_problem(token, known.issuer)) is not None:
            return wrong
        if keys := known.candidates(token.kid):
            found = read_token(token, known.issuer, keys, wall_s)
            return msgspec.structs.replace(found, asks=True) if isinstance(found, Grant) and self._asks else found
        if len(token.kid.encode()) > KID_BYTES:
            return refused("the token's kid is too long")
        if known.keys and not token.kid:
            return refused("the token names no kid, and its issuer has many keys")
        if known.keys and known.is_known_as_unknown(token.kid):
            return refused(f"the token's kid is {shown(token.kid)}, which its issuer does not have")
        return None

    def _fetch(self, known: KeySet, now: float, out: list[Effect]) -> None:
        if known.must_fetch(now):
            out.append(FetchKeys(known))

    def on_keys(
        self,
        known: KeySet,
        document: bytes | None,
        why: str,
        now: float,
        wall_s: float,
        out: list[Effect],
        pause: Pause = no_pause,
    ) -> list[tuple[Any, Message]]:
        """The keys of an issuer have come; or they have not, and why. Returns who gets which answer.

        Args:
            pause: is called after each token that is looked at: very many may have waited.
        """
        known.on_fetched(document, why, now)
        if known.why:
            fields = {"issuer": known.issuer.issuer, "url": known.issuer.jwks, "reason": known.why}
            out.append(Note(ERROR, "keys of an issuer not fetched", fields))
        issuer = known.issuer.issuer
        is_over = self.issuers.get(issuer) is not known  # another topology has other keys
        told: list[tuple[Any, Message]] = []
        for waiter in self._waiting.pop(issuer, []):
            if is_over:
                told.append((waiter.asker, self._answer(waiter.m, _keyless(known), now)))
                continue
            found = self._look_up(waiter.token, known, wall_s)
            if found is None and not known.why and waiter.has_begun:
                known.remember_unknown(waiter.token.kid)
                found = self._look_up(waiter.token, known, wall_s)
            told.append((waiter.asker, self._answer(waiter.m, found or _keyless(known), now)))
            pause()
        return told

    def _answer(self, m: Auth, found: Grant | Denial, now: float) -> Authed:
        if isinstance(found, Grant) and not m.is_refresh:
            found = self.often.look(found, self._identity.knows_clients, now)
        if isinstance(found, Denial):
            self.denied[found.code] += 1
            return Authed(m.req, None, found)
        self.admitted += 1
        return Authed(m.req, found)

    # -- the application

    @property
    def _asks(self) -> bool:
        """Rooms are asked about."""
        return self._identity.callout is not None and self._identity.callout.join != ""

    def _call(self, asker: Any, m: Auth, token: bytes, now: float, out: list[Effect]) -> Grant | Denial | None:
        try:
            text = token.decode()
        except UnicodeDecodeError:
            return refused("the token is no UTF-8")
        body = msgspec.json.encode({"token": text, "device": m.device, "address": m.address})
        digest = hashlib.blake2b(token, digest_size=20).digest()
        return self.connect.ask((digest, m.device, m.address), body, (asker, m), now, out)

    def ask_join(self, asker: Any, m: AskJoin, now: float, out: list[Effect]) -> MayJoin | None:
        """The answer, if it is known at once; else it comes later."""
        if not self._asks:
            return MayJoin(m.req, ())
        body = msgspec.json.encode({"user": m.user, "device": m.device, "rooms": m.rooms})
        found = self.join.ask((m.user, m.device, m.rooms), body, (asker, m), now, out)
        return None if found is None else _may_join(m, found)

    def on_reply(
        self, caller: Caller[Any], number: int, reply: Reply | str, now: float, out: list[Effect]
    ) -> list[tuple[Any, Message]]:
        """The application has answered; or it has not, and why. Returns who gets which answer."""
        return self._told(caller.on_reply(number, reply, now, out), now)

    def on_tick(self, now: float, out: list[Effect]) -> list[tuple[Any, Message]]:
        """Fifty times a second. Returns who gets which answer."""
        for known in self.issuers.values():
            self._fetch(known, now, out)
        callers = [self.connect, self.join, *self._former]
        self._former = [caller for caller in self._former if caller.waiting]
        return self._told([told for caller in callers for told in caller.on_tick(now)], now)

    def _told(self, told: Iterable[tuple[Any, Any]], now: float) -> list[tuple[Any, Message]]:
        return [
            (asker, self._answer(m, found, now) if isinstance(m, Auth) else _may_join(m, found))
            for (asker, m), found in told
        ]

    def _read_connected(self, reply: Reply) -> tuple[Grant | Denial, float]:
        found = _read(reply, _Connected)
        if reply.status != 200 or found.reason:
            return refused(found.reason[:REASON_CHARS] or "not allowed"), found.cache_s
        if found.user is None:
            raise NoAnswer('it answers neither "user" nor "reason"')
        lifetime_ms = 0 if found.expires_s is None else int(min(found.expires_s, LIFETIME_S) * 1000) or 1
        grant = Grant(str(found.user), *fields_of(found), lifetime_ms, self._asks, found.sessions or 0)
        if problem := grant_problem(grant):
            raise NoAnswer(f"it answers what cannot be: {problem}")
        return grant, found.cache_s if found.expires_s is None else min(found.cache_s, found.expires_s)


def _keyless(known: KeySet) -> Denial:
    why = f"the keys of {known.issuer.issuer} are not known: {known.why or 'they have just been asked for'}"
    return Denial("try_again", "the token's key is not known at the moment; try again", why)


def _caller(name: str, url: str, callout: Callout, read: Any, silence: Any, age: Any) -> Caller[Any]:
    return Caller(name, url, callout.timeout_s, callout.max_requests, callout.ca, read, silence, age)


def _read(reply: Reply, kind: type[Any]) -> Any:
    """What an answer says; of a refusal (401, 403) it may be anything.

    Raises:
        NoAnswer: it is none.
    """
    is_refusal = reply.status in (401, 403)
    if reply.status != 200 and not is_refusal:
        raise NoAnswer(f"it answers with status {reply.status}")
    try:
        document = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = {} if is_refusal else None
    found = read_claim(document, kind)
    if isinstance(found, str):
        if is_refusal:
            return kind()
        raise NoAnswer(f"it answers what is not understood: {found}")
    return found


def _read_joined(reply: Reply) -> tuple[_Joined, float]:
    found: _Joined = _read(reply, _Joined)
    return (found if reply.status == 200 else _Joined((), found.reason, found.cache_s)), found.cache_s


def _nobody_tells(why: str) -> Denial:
    return Denial("try_again", "nobody can tell at the moment; try again", f"callout: {why}")


_SILENT = _Joined((), "nobody can tell at the moment; try again")  # by identity


def _no_rooms(why: str) -> _Joined:
    return _SILENT


def _may_join(m: AskJoin, found: _Joined) -> MayJoin:
    asked = set(m.rooms)
    rooms = tuple(room for room in dict.fromkeys(found.rooms) if room in asked)
    return MayJoin(m.req, rooms, found.reason[:REASON_CHARS], found is not _SILENT)


def _aged(found: Grant | Denial, seconds: float) -> Grant | Denial:
    if isinstance(found, Denial) or not found.lifetime_ms:
        return found
    return msgspec.structs.replace(found, lifetime_ms=max(1, found.lifetime_ms - int(seconds * 1000)))


def _unquoted(token: bytes) -> bytes:
    """goim's clients on WebSocket send JSON: of a string, what is in it."""
    if len(token) < 2 or token[:1] != b'"':
        return token
    try:
        return msgspec.json.decode(token, type=str).encode()
    except (msgspec.DecodeError, UnicodeError):
        return token

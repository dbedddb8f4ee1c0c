"""JSON Web Tokens of clients: what stands in them, and the grant that comes of it. Pure.

    eyJhbGciOi….eyJpc3MiOi….Qm9n…     header, payload, signature, each in base64url (RFC 7515 7.1)

    header   {"alg": "RS256", "kid": "2026-11"}
    payload  {"iss": "https://auth.example.com", "aud": "zim", "sub": "7", "exp": 1764192000,
              "zim": {"rooms": ["lobby"], "join": ["chat-*"], "read": ["r:news-*"], "device": "phone"}}

Required are iss, aud, exp, sub; nbf counts if it is there. Without the claim zim a client is in its user's own stream
and in everybody's, and no room. Source: RFC 7519; RFC 8725 says what goes wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from zim.fabric.grants import LIFETIME_S, Denial, Grant, grant_problem
from zim.fabric.limits import SESSIONS, TOKEN_BYTES
from zim.fabric.names import shown
from zim.fabric.patterns import ANY, covers, first_unmatched, matches
from zim.identity.keys import BadSignature, Key, unpack, verified_payload
from zim.topology.identity import Issuer

T = TypeVar("T")

_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_FAR = float(1 << 53)  # seconds; what is beyond, or no number, is no moment
_LISTED = 3  # patterns that a refusal names
_FOREIGN_KEYS = ("jwk", "jku", "x5u")  # header fields that bring or name a key of the sender's choice


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The claim zim, and what a callout answers: see Grant."""

    rooms: tuple[str, ...] = ()
    join: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    device: str = ""
    sessions: Annotated[int, Meta(ge=1, le=SESSIONS)] | None = None


class Compact(NamedTuple):
    """A token, looked at but not believed.

    Attributes:
        token: as it came.
        algorithm, kid: as its header says; "" where it does not.
        issuer: as its payload says.
        header: all of it.
    """

    token: bytes
    algorithm: str
    kid: str
    issuer: str
    header: Mapping[str, Any]


class _Peek(msgspec.Struct):
    iss: str


class _Payload(msgspec.Struct):
    iss: Any = None
    aud: Any = None
    exp: Any = None
    sub: Any = None
    nbf: Any = None
    zim: Any = None


def refused(reason: str, detail: str = "") -> Denial:
    """It would be refused again."""
    return Denial("refused", reason, detail)


def look_at(token: bytes) -> Compact | None:
    """A token in three parts, whose payload names an issuer; nothing if it is something else.

    Nothing of it is believed: this only says who is asked.
    """
    if len(token) > TOKEN_BYTES or not _COMPACT.fullmatch(token):
        return None
    head, payload, _ = token.split(b".")
    try:
        header = msgspec.json.decode(unpack(head), type=dict[str, Any])
        issuer = msgspec.json.decode(unpack(payload), type=_Peek).iss
    except (ValueError, RecursionError):
        return None
    return Compact(token, _text(header.get("alg")), _text(header.get("kid")), issuer, header)


def shape_problem(token: bytes) -> str:
    """Why `look_at` has found nothing, for the client."""
    if not _COMPACT.fullmatch(token):
        return "the token is no JWT: three parts in base64url, with a point between"
    return "the token is no JWT of an issuer: its header is no JSON object, or its payload has no text iss"


def header_problem(found: Compact, issuer: Issuer) -> Denial | None:
    """Why no key is worth looking for."""
    if "crit" in found.header:
        return refused("the token's header has crit, and nothing critical is understood")
    if foreign := [name for name in _FOREIGN_KEYS if name in found.header]:
        return refused(f"the token's header has {foreign[0]}; keys are the issuer's, never the token's")
    if found.algorithm not in issuer.algorithms:
        right = " or ".join(issuer.algorithms)
        return refused(f"the token is signed by {shown(found.algorithm)}; right is {right}")
    return None


def read_token(found: Compact, issuer: Issuer, keys: Sequence[Key], wall_s: float) -> Grant | Denial:
    """The grant of a token; or why there is none.

    Args:
        found: of this issuer.
        keys: that may have signed it.
        wall_s: the wall clock, in seconds since 1970.
    """
    if (wrong := header_problem(found, issuer)) is not None:
        return wrong
    try:
        document = verified_payload(found.token, found.algorithm, keys)
    except BadSignature as e:
        return refused("the token's signature is not right", str(e))
    try:
        payload = msgspec.json.decode(document, type=_Payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return refused("the token's payload is no JSON object")
    wrong = _claims_problem(payload, issuer, wall_s)
    grant = wrong or _grant(payload, wall_s)
    return (_beyond(grant, issuer) or grant) if isinstance(grant, Grant) else grant


def _claims_problem(payload: _Payload, issuer: Issuer, wall_s: float) -> Denial | None:
    required = ("iss", "aud", "exp", "sub")
    if missing := [name for name in required if getattr(payload, name) is None]:
        return refused(f"the token has no {missing[0]}; required are {', '.join(required)}")
    if payload.iss != issuer.issuer:
        return refused(f"the token's iss is {shown(str(payload.iss))}, which is not known")
    audiences = [payload.aud] if isinstance(payload.aud, str) else payload.aud
    if not isinstance(audiences, list) or not set(map(_text, audiences)) & set(issuer.audiences):
        right = " or ".join(issuer.audiences)
        return refused(f"the token's aud is {shown(str(payload.aud))}; right is {right}")
    for name in ("exp", "nbf"):
        if (moment := getattr(payload, name)) is not None and not _is_moment(moment):
            return refused(f"the token's {name} is no number of seconds since 1970")
    if payload.exp <= wall_s - issuer.leeway_s:
        return Denial("expired", f"the token expired {wall_s - payload.exp:.0f} s ago")
    if payload.nbf is not None and payload.nbf > wall_s + issuer.leeway_s:
        return refused(f"the token is not valid yet, but in {payload.nbf - wall_s:.0f} s (nbf)")
    if not isinstance(payload.sub, str):
        return refused("the token's sub is no string; it is the user's name")
    return None


def _grant(payload: _Payload, wall_s: float) -> Grant | Denial:
    claim = Claim() if payload.zim is None else read_claim(payload.zim, Claim)
    if isinstance(claim, str):
        return refused(f"the token's claim zim: {claim}")
    lifetime_s = min(max(payload.exp - wall_s, 0.001), LIFETIME_S)
    grant = Grant(payload.sub, *fields_of(claim), int(lifetime_s * 1000) or 1, sessions=claim.sessions or 0)
    problem = grant_problem(grant)
    return refused(f"the token cannot be: {problem}") if problem else grant


def _beyond(grant: Grant, issuer: Issuer) -> Denial | None:
    """What a token says that its issuer may not sign."""
    if (users := issuer.users) != ANY and not matches(grant.user, users):
        return refused(f"the token's sub is {shown(grant.user)}; this issuer may sign for {_listed(users)}")
    if (rooms := issuer.rooms) != ANY:
        wrong_join = (one for one in grant.join if not covers(rooms, one))
        for name, wrong in (("rooms", first_unmatched(grant.rooms, rooms)), ("join", next(wrong_join, None))):
            if wrong is not None:
                return refused(f"the token's {name} has {shown(wrong)}; this issuer may sign for {_listed(rooms)}")
    if issuer.users != ANY or issuer.rooms != ANY:
        streams = [*(f"u:{one}" for one in issuer.users), *(f"r:{one}" for one in issuer.rooms)]
        if (wrong := next((one for one in grant.read if not covers(streams, one)), None)) is not None:
            return refused(f"the token's read has {shown(wrong)}; this issuer may sign for {_listed(streams)}")
    return None


def _listed(patterns: Sequence[str]) -> str:
    more = f" and {len(patterns) - _LISTED} others" if len(patterns) > _LISTED else ""
    return ", ".join(map(shown, patterns[:_LISTED])) + more if patterns else "nobody"


def read_claim(document: Any, kind: type[T]) -> T | str:
    """It in JSON's values; or what is wrong with them, for people."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as e:
        if (unknown := _UNKNOWN_FIELD.match(str(e))) is not None:
            names = ", ".join(kind.__struct_fields__)  # type: ignore[attr-defined]
            return f"no field is called {shown(unknown[1])}; there are {names}"
        return str(e)


def fields_of(claim: Claim) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str]:
    """Of a Grant: rooms, join, read, device."""
    return tuple(dict.fromkeys(claim.rooms)), claim.join, claim.read, claim.device


def _is_moment(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _FAR


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

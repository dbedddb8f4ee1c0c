"""May a user be in a room, and by which rule: what a logic and a comet decide, in words for people. Pure.

Without a token it is what the topology says of anybody; with one, what the token is worth. The order of the rules is
that of `zim.nodes.logic.desk`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from zim.fabric.answers import KeptBan
from zim.fabric.grants import ANONYMOUS, Denial, Grant
from zim.fabric.limits import TOKEN_BYTES
from zim.fabric.names import shown
from zim.fabric.patterns import ANY, matches, matching
from zim.fabric.retention import DAY_S, Retention
from zim.fabric.streams import room_stream
from zim.identity import goim
from zim.identity.tokens import Compact, look_at, shape_problem
from zim.topology.identity import Identity, Issuer
from zim.topology.nodes import Topology

Answer = Literal["yes", "no", "it depends"]

_GOIM = "goim's token handler"
_BELIEVES = "it asks for no proof: whoever reaches a comet is who it says, until there is an [[issuer]] or a [callout]"


class Verdict(NamedTuple):
    """What is said.

    Attributes:
        why: the rule.
        details: more of it, a line each.
    """

    answer: Answer
    why: str
    details: tuple[str, ...] = ()


class Signed(NamedTuple):
    """The token's issuer is known: its keys decide."""

    issuer: Issuer
    token: Compact


def without_token(topology: Topology, user: str, room: str) -> Verdict:
    """What the topology alone says."""
    identity = topology.identity
    if not identity.knows_clients:
        return _of_goim(user.encode(), user, room)
    if identity.anonymous is not None and user.startswith(ANONYMOUS):
        return _of_anonymous(topology, user, room)
    if not identity.knows_tokens:
        why = f"nobody can tell who {shown(user)} is; all come without a token, and are called {ANONYMOUS}…"
        return Verdict("no", why, _rules(topology, room))
    what = "the token decides" if identity.issuers else "the application decides"
    return Verdict("it depends", f"{what}; show it with --token-file", _rules(topology, room))


def _rules(topology: Topology, room: str) -> tuple[str, ...]:
    identity, found = topology.identity, list[str]()
    for issuer in identity.issuers:
        audiences = " or ".join(issuer.audiences)
        limits = (("users", issuer.users), ("rooms", issuer.rooms))
        only = "".join(f"; {what} {' '.join(names)} alone" for what, names in limits if names != ANY)
        found.append(f"a token of {issuer.issuer} for {audiences}: rooms and join of its claim zim{only}")
    if (callout := identity.callout) is not None:
        if callout.connect:
            found.append(f"any other token: your application is asked, {callout.connect}")
        if callout.join:
            found.append(f"where that does not allow the room: your application is asked, {callout.join}")
    if identity.anonymous is not None:
        verdict = _of_anonymous(topology, f"{ANONYMOUS}…", room)
        found.append(f"without a token: {verdict.answer}, {verdict.why}")
    return tuple(found)


def first_look(topology: Topology, user: str, room: str, token: bytes) -> Verdict | Signed:
    """Who decides about a token; the decision, if no key is needed for it."""
    identity = topology.identity
    if not identity.knows_clients:
        return _of_goim(token, user, room)
    if len(token) > TOKEN_BYTES:
        return Verdict("no", f"the token has {len(token)} bytes; right is at most {TOKEN_BYTES}")
    compact = look_at(token)
    issuer = next((i for i in identity.issuers if compact is not None and i.issuer == compact.issuer), None)
    if compact is not None and issuer is not None:
        return Signed(issuer, compact)
    if identity.callout is not None and identity.callout.connect:
        why = f"no issuer has signed the token, so your application is asked: {identity.callout.connect}"
        return Verdict("it depends", why)
    if compact is None:
        return Verdict("no", shape_problem(token))
    return Verdict("no", f"the token's iss is {shown(compact.issuer)}, which is not known")


def by_token(identity: Identity, user: str, room: str, found: Grant | Denial, ends: str) -> Verdict:
    """What a token is worth that its issuer's keys have decided about.

    Args:
        ends: when it does, for people.
    """
    if isinstance(found, Denial):
        detail = (found.detail,) if found.detail else ()
        return Verdict("no", f"the token is refused: {found.reason}", detail)
    device = f", on a {found.device}" if found.device else ""
    about = f"the token is {found.user}'s{device}, until {ends}"
    verdict = _by_grant(identity, found, room, "the token's claim zim.")
    return _of_whom(found.user, user, verdict._replace(details=(*verdict.details, about)))


def with_bans(verdict: Verdict, user: str, device: str, bans: Sequence[KeptBan], left_out: int) -> Verdict:
    """The verdict on a user who may be banned. Bans of addresses are nobody's in particular.

    Args:
        device: the class of the user's device; "" if it has none, or it is not known.
        left_out: how many bans there are beside these.
    """
    for ban in bans:
        if ban.user == user and ban.device in ("", device):
            length = "for ever" if ban.left_s is None else f"for {ban.left_s:.0f} s more"
            why = f"{shown(user)} is banned {length}" + (f": {ban.reason}" if ban.reason else "")
            return Verdict("no", why, (f"else {verdict.answer}: {verdict.why}", *verdict.details))
    devices = sorted({ban.device for ban in bans if ban.user == user})
    said = f"devices of the class {', '.join(devices)} are banned" if devices else f"{shown(user)} is not banned"
    more = f"; {left_out:,} older bans were not looked at" if left_out else ""
    return verdict._replace(details=(*verdict.details, said + more))


def without_bans(verdict: Verdict) -> Verdict:
    """The verdict where nobody was asked for bans."""
    return verdict._replace(details=(*verdict.details, "bans were not looked at; with --http or --key-file they are"))


def how_kept(retention: Retention, room: str) -> str:
    """Which class a room is of, and how long its messages are kept."""
    rule = retention.rule(room_stream(room))
    names = (f"the room class {each.name}" for each in retention.classes if matches(room, each.rooms))
    name = next(names, "no room class")
    if rule.is_live_only:
        return f"{shown(room)} is of {name}: live only, no message is kept"
    days = rule.age_s / DAY_S
    age = f"{rule.age_s:g} s" if days < 1 else "1 day" if days == 1 else f"{days:g} days"
    return f"{shown(room)} is of {name}: the newest {rule.count:,} messages are kept, for {age}"


def _of_goim(token: bytes, user: str, room: str) -> Verdict:
    found = goim.identify(token, False)
    if isinstance(found, Denial):
        return Verdict("no", f"{_GOIM} refuses: {found.reason}", (_BELIEVES,))
    verdict = Verdict("yes", f"{_GOIM} lets everybody join any room; insecure", (_BELIEVES,))
    return _of_whom(found.user, user, verdict)


def _of_anonymous(topology: Topology, user: str, room: str) -> Verdict:
    identity = topology.identity
    free = identity.anonymous
    if free is None or not any(one.anonymous for comet in topology.comets for one in (*comet.tcp, *comet.ws)):
        return Verdict("no", "no listener has anonymous = true, so nobody comes in without a token")
    return _by_grant(identity, Grant(user, free.rooms, free.join), room, "anonymous.")


def _by_grant(identity: Identity, grant: Grant, room: str, whose: str) -> Verdict:
    """whose: where its fields stand."""
    has = tuple(f"{whose}{name}: {' '.join(values) or '–'}" for name, values in _fields(grant))
    if room in grant.rooms:
        return Verdict("yes", f"{whose}rooms has {shown(room)}: it is there from the start")
    if pattern := matching(room, grant.join):
        return Verdict("yes", f"{whose}join has {shown(pattern)}")
    if identity.callout is not None and identity.callout.join:
        why = f"{whose}rooms and join do not have it, so your application is asked: {identity.callout.join}"
        return Verdict("it depends", why, has)
    return Verdict("no", f"neither {whose}rooms nor join has it", has)


def _fields(grant: Grant) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("rooms", grant.rooms), ("join", grant.join)


def _of_whom(owner: str, user: str, verdict: Verdict) -> Verdict:
    """The verdict on a user, where that on the token's owner is given."""
    if owner == user:
        return verdict
    why = f"the token is of user {shown(owner)}, and not of {shown(user)}"
    return Verdict("no", why, (f"for {shown(owner)} {verdict.answer}: {verdict.why}", *verdict.details))

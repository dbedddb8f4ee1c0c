"""`zim explain`: by which rule a user may be in a room; and that a logic and a comet decide the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.identity.signers import ISSUER, NOW, TokenSigner
from tests.unit.topology.test_file import small, text_of
from zim.fabric.answers import KeptBan
from zim.fabric.grants import ANONYMOUS, Denial, Grant
from zim.fabric.retention import Retention, RoomClass, Rule
from zim.identity.explaining import Signed, Verdict, by_token, first_look, how_kept, with_bans, without_token
from zim.identity.tokens import read_token
from zim.nodes.logic.desk import Desk
from zim.protocol.frame import VERSION
from zim.protocol.logins import Auth
from zim.topology import Topology, parse

KEY = TokenSigner("HS256")
ISSUERS = [{"issuer": ISSUER, "audience": "zim", "algorithms": ["HS256"], "secret_env": "JWT"}]
CONNECT, JOIN = "https://app.example.com/connect", "https://app.example.com/join"
OPEN = [{"id": 1, "ws": {"address": "127.0.0.1:8090", "anonymous": True}, "bind": "tcp://127.0.0.1:8092"}]

FABRICS: dict[str, dict[str, Any]] = {
    "goim": {},
    "issuer": {"issuer": ISSUERS},
    "issuer and join": {"issuer": ISSUERS, "callout": {"join": JOIN}},
    "connect": {"callout": {"connect": CONNECT}},
    "issuer and connect": {"issuer": ISSUERS, "callout": {"connect": CONNECT, "join": JOIN}},
    "anonymous": {"anonymous": {"rooms": ["lobby"], "join": ["chat-*"]}, "comet": OPEN},
    "anonymous and join": {"anonymous": {"rooms": ["lobby"]}, "comet": OPEN, "callout": {"join": JOIN}},
    "anonymous at no listener": {"anonymous": {"rooms": ["lobby"]}},
    "all": {
        "issuer": ISSUERS,
        "anonymous": {"rooms": ["lobby"]},
        "comet": OPEN,
        "callout": {"connect": CONNECT, "join": JOIN},
    },
}
TOKENS = {
    "right": KEY.token(zim={"rooms": ["lobby"], "join": ["chat-*", "c*"]}),
    "without a claim": KEY.token(),
    "of a stranger": TokenSigner("HS256", number=1).token(),
    "that is over": KEY.token(exp=NOW - 60),
    "of an unknown issuer": KEY.token(iss="https://elsewhere.example.com"),
    "too long": b"x" * 10_000,
    "a number": b"7",
    "another number": b"8",
    "a word": b"anna",
}


def fabric(name: str) -> Topology:
    return parse(text_of(small() | FABRICS[name]), Path("/srv/zim/topology.toml"))


def explained(topology: Topology, token: bytes, room: str, user: str = "7") -> Verdict:
    """As `zim explain` does it."""
    found = first_look(topology, user, room, token)
    if not isinstance(found, Signed):
        return found
    grant = read_token(found.token, found.issuer, [KEY.key()], NOW)
    return by_token(topology.identity, user, room, grant, "then")


def decided(topology: Topology, token: bytes, room: str, user: str = "7", is_anonymous: bool = False) -> str:
    """By a logic and a comet."""
    desk = Desk(topology.identity, {ISSUER: [KEY.key()]}, lambda: "1")
    authed = desk.log_in("client", Auth(1, token, VERSION, "", "", is_anonymous), 0.0, NOW, [])
    if authed is None:
        return "it depends"
    if authed.grant is None or authed.grant.user != user:
        return "no"
    if authed.grant.rights.may_join(room):
        return "yes"
    return "it depends" if authed.grant.asks else "no"


@pytest.mark.parametrize("room", ["lobby", "chat-1", "chat", "Chat-1", "news"])
@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
@pytest.mark.parametrize("name", FABRICS)
def test_a_logic_and_a_comet_decide_the_same(name: str, token: bytes, room: str) -> None:
    topology = fabric(name)
    assert explained(topology, token, room).answer == decided(topology, token, room)


@pytest.mark.parametrize("room", ["lobby", "chat-1", "news"])
@pytest.mark.parametrize("name", [name for name in FABRICS if name.startswith("anonymous") or name == "all"])
def test_so_they_do_about_people_without_a_token(name: str, room: str) -> None:
    topology, user = fabric(name), ANONYMOUS + "1"
    lets_in = any(listener.anonymous for comet in topology.comets for listener in comet.ws)
    assert without_token(topology, user, room).answer == decided(topology, b"", room, user, lets_in)


@pytest.mark.parametrize(
    ("name", "token", "room", "answer", "why"),
    [
        ("issuer", "right", "lobby", "yes", "the token's claim zim.rooms has 'lobby': it is there from the start"),
        ("issuer", "right", "chat-1", "yes", "the token's claim zim.join has 'chat-*'"),
        ("issuer", "right", "news", "no", "neither the token's claim zim.rooms nor join has it"),
        ("issuer", "that is over", "lobby", "no", "the token is refused: the token expired 60 s ago"),
        ("issuer", "of a stranger", "lobby", "no", "the token is refused: the token's signature is not right"),
        ("issuer", "a word", "lobby", "no", "the token is no JWT: three parts in base64url, with a point between"),
        ("issuer and join", "right", "news", "it depends", f"so your application is asked: {JOIN}"),
        (
            "connect",
            "right",
            "lobby",
            "it depends",
            f"no issuer has signed the token, so your application is asked: {CONNECT}",
        ),
        ("goim", "a number", "news", "yes", "goim's token handler lets everybody join any room; insecure"),
        ("goim", "another number", "news", "no", "the token is of user '8', and not of '7'"),
        ("goim", "a word", "news", "no", "goim's token handler refuses: the token is no number"),
    ],
)
def test_the_rule_is_named(name: str, token: str, room: str, answer: str, why: str) -> None:
    verdict = explained(fabric(name), TOKENS[token], room)
    assert verdict.answer == answer
    assert why in verdict.why


def test_a_token_of_somebody_else_says_what_it_is_worth_to_them() -> None:
    verdict = explained(fabric("issuer"), TOKENS["right"], "chat-1", "anna")
    assert verdict[:2] == ("no", "the token is of user '7', and not of 'anna'")
    assert verdict.details == ("for '7' yes: the token's claim zim.join has 'chat-*'", "the token is 7's, until then")


@pytest.mark.parametrize(
    ("name", "user", "answer", "words"),
    [
        ("goim", "7", "yes", ["insecure"]),
        ("goim", "anna", "no", ["is no number"]),
        ("goim", "007", "no", ["of user '7', and not of '007'"]),
        ("issuer", "anna", "it depends", ["the token decides", ISSUER]),
        ("connect", "anna", "it depends", ["the application decides", CONNECT]),
        ("issuer and connect", "anna", "it depends", ["the token decides", ISSUER, CONNECT, JOIN]),
        (
            "anonymous",
            "anna",
            "no",
            ["nobody can tell who 'anna' is", "without a token: yes, anonymous.rooms has 'lobby'"],
        ),
        ("anonymous at no listener", "anonymous-1", "no", ["no listener has anonymous = true"]),
        ("all", "anna", "it depends", [ISSUER, CONNECT, JOIN, "without a token: yes"]),
    ],
)
def test_without_a_token_it_is_what_the_rules_say(name: str, user: str, answer: str, words: list[str]) -> None:
    verdict = without_token(fabric(name), user, "lobby")
    assert verdict.answer == answer
    for word in words:
        assert word in "\n".join((verdict.why, *verdict.details))


def test_when_a_token_ends_and_of_which_device_it_is() -> None:
    identity = fabric("issuer").identity
    grant = Grant("7", ("lobby",), device="phone")
    assert by_token(identity, "7", "lobby", grant, "tomorrow").details == (
        "the token is 7's, on a phone, until tomorrow",
    )
    assert by_token(identity, "7", "lobby", Denial("refused", "no", "why"), "").details == ("why",)


YES = Verdict("yes", "because", ("a detail",))


@pytest.mark.parametrize(
    ("device", "answer", "words"),
    [("", "yes", "devices of the class phone are banned"), ("phone", "no", "'7' is banned for 60 s more: spam")],
)
def test_a_ban_of_a_class_of_devices(device: str, answer: str, words: str) -> None:
    bans = [KeptBan(1, "8"), KeptBan(2, "7", "phone", reason="spam", left_s=60.0)]
    verdict = with_bans(YES, "7", device, bans, 0)
    assert verdict.answer == answer
    assert words in "\n".join((verdict.why, *verdict.details))


def test_bans() -> None:
    assert with_bans(YES, "7", "", [KeptBan(1, "7")], 0) == (
        "no",
        "'7' is banned for ever",
        ("else yes: because", "a detail"),
    )
    assert with_bans(YES, "7", "", [KeptBan(1, address="192.0.2.1/32")], 1200) == (
        "yes",
        "because",
        ("a detail", "'7' is not banned; 1,200 older bans were not looked at"),
    )


def test_how_long_messages_are_kept() -> None:
    classes = (RoomClass("ticker", ("t-*",), Rule(1, 60.0)), RoomClass("cursors", ("*-c",), Rule(0, 60.0)))
    retention = Retention(classes=classes)
    assert how_kept(retention, "t-c") == "'t-c' is of the room class ticker: the newest 1 messages are kept, for 60 s"
    assert how_kept(retention, "a-c") == "'a-c' is of the room class cursors: live only, no message is kept"
    assert how_kept(Retention(rooms=Rule(5, 172_800.0)), "a").endswith(
        "no room class: the newest 5 messages are kept, for 2 days"
    )

"""Who comes to a real fabric with a token, and how it is answered."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.harness import Client, Fabric
from tests.unit.identity.signers import SECRET, TokenSigner
from tests.zim_client import ZimClient
from zim.protocol import frame
from zim.protocol.endings import Ending
from zim.protocol.frame import Op

ISSUER = "https://app.example.com"
AT_ONCE_S = 2.0  # an answer, and not the end of the time for the handshake, which is 5 s
_SIGNER = TokenSigner("HS256")


class Stranger(Client):
    """It speaks zim's own protocol, and waits for no auth reply."""

    version = frame.VERSION


def claims(user: str = "7", **more: Any) -> dict[str, Any]:
    """Of a token that is right. more: on top; None takes one away."""
    found = {"iss": ISSUER, "aud": "zim", "sub": user, "exp": int(time.time()) + 600, **more}
    return {name: value for name, value in found.items() if value is not None}


def token(user: str = "7", zim: dict[str, Any] | None = None, **more: Any) -> str:
    """One that ISSUER has signed with SECRET. zim: the claim."""
    return _SIGNER.token(claims(user, zim=zim, **more)).decode()


def issuer_table(secret_file: Any) -> str:
    """ISSUER in a topology; writes its secret."""
    secret_file.write_bytes(SECRET)
    return f'[[issuer]]\nissuer = "{ISSUER}"\naudience = "zim"\nalgorithms = ["HS256"]\nsecret_file = "{secret_file}"\n'


def address(fabric: Fabric, is_ws: bool, comet: str = "comet-1") -> str:
    return (fabric.ws if is_ws else fabric.tcp)[comet]


def enter(fabric: Fabric, shown: str, is_ws: bool = False, **more: Any) -> ZimClient:
    """A client that is let in."""
    return ZimClient(address(fabric, is_ws), shown, is_ws, **more)


def knock(fabric: Fabric, shown: str, is_ws: bool = False, comet: str = "comet-1", **more: Any) -> Stranger:
    """A client that shows a token. more: of the auth packet."""
    client = Stranger(address(fabric, is_ws, comet), None, is_ws)
    client.say(Op.AUTH, json.dumps({"token": shown, **more}).encode(), seq=1)
    return client


def sent_away(client: Client, ending: Ending, timeout_s: float = AT_ONCE_S) -> str:
    """Waits until a client of zim's protocol is sent away, in this way and with nothing before; returns why."""
    client.wait_closed(timeout_s)
    assert client.packets, f"closed ({client.close_code} {client.close_reason}) without a word"
    last = client.packets[-1]
    assert last.op == Op.DISCONNECT, client.packets
    document = json.loads(last.body)
    assert document["code"] == ending.zim_code, document
    assert client.close_code == (ending.zim_code if client.is_ws else 0)
    reason: str = document["reason"]
    return reason

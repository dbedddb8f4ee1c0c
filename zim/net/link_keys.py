"""Who may be at the other end of a link: the keys of all nodes, and the answer to libzmq's question. Pure.

A connection's User-Id is the public key that its client has proved to have. Who that is, is looked up for each message.
So a key that is taken away or replaced says nothing any more, on connections that are open, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

LINKS, PUBLISHERS = b"links", b"publishers"  # ZAP domains: who may connect where

_CURVE, _KEY_BYTES = b"CURVE", 32
_HEAD = 6  # frames of a request before its credentials


Rest = Callable[[], None]
"""What is left to do, in a greenlet of its own."""
Follower = Callable[[frozenset[str], frozenset[str]], Rest | None]
"""Is told of which nodes the keys are not what they were, and of which of these one was taken away or replaced. It must
not switch."""


class LinkKeys:
    """The keys of a node and of its peers, and what has been refused by them.

    Attributes:
        name: of the node.
        secret: its secret key, 32 bytes.
        refused_links: connections of somebody whose key is nobody's.
        refused_messages: of somebody whose key was taken away, or replaced, since it connected.
    """

    def __init__(self, name: str, secret: bytes, public: Mapping[str, str]) -> None:
        """
        Args:
            public: the public key of each node, in hexadecimal.
        """
        self.name, self.secret = name, secret
        self._names: dict[str, str] = {}
        self._followers: list[Follower] = []
        self.refused_links = self.refused_messages = 0
        self._know(public)

    def _know(self, public: Mapping[str, str]) -> None:
        self._public = dict(public)
        self._names = {key: name for name, key in public.items()}

    @property
    def is_listed(self) -> bool:
        """Others know this node's key, so they let it in."""
        return self.name in self._public

    def key_of(self, peer: str) -> bytes | None:
        """The public key of a node, 32 bytes; None if it is let in nowhere."""
        key = self._public.get(peer)
        return None if key is None else bytes.fromhex(key)

    def name_of(self, user_id: str) -> str:
        """Which node has this key, in hexadecimal; "" if none has."""
        return self._names.get(user_id, "")

    def call_on_change(self, follower: Follower) -> None:
        """From now on it is told of changes."""
        self._followers.append(follower)

    def follow(self, secret: bytes, public: Mapping[str, str]) -> list[Rest]:
        """Takes over changed keys, and tells whom it concerns. Does not switch.

        Returns:
            what is left to do.
        """
        before, own = self._public, self.secret
        self._know(public)
        self.secret = secret
        changed = {name for name in {**before, **public} if before.get(name) != public.get(name)}
        lost = frozenset(changed & before.keys())
        if secret != own:
            changed.add(self.name)
        if not changed:
            return []
        left = [follower(frozenset(changed), lost) for follower in self._followers]
        return [rest for rest in left if rest is not None]

    def answer(self, request: Sequence[bytes]) -> list[bytes] | None:
        """What libzmq is told of somebody who connects (RFC 27, ZAP); None if it is no question.

        Args:
            request: `[version, request id, domain, address, routing id, mechanism, credentials…]`; for CURVE there is
                one credential, the client's public key.

        Returns:
            `[version, request id, status, why, User-Id, metadata]`. The User-Id is that key in hexadecimal.
        """
        if len(request) < _HEAD or request[0] != b"1.0":
            return None
        request_id, domain, mechanism, credentials = request[1], request[2], request[5], request[_HEAD:]
        is_key = mechanism == _CURVE and len(credentials) == 1 and len(credentials[0]) == _KEY_BYTES
        user_id = credentials[0].hex() if is_key else ""
        if is_key and (domain == PUBLISHERS or (domain == LINKS and self.name_of(user_id))):
            return [b"1.0", request_id, b"200", b"OK", user_id.encode(), b""]
        self.refused_links += 1
        return [b"1.0", request_id, b"400", b"no key of a node", b"", b""]

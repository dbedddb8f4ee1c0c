"""A node's guard: who may connect to it, and what those who are connected may say. It has nothing to do without link
keys."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from zim.errors import NodeError
from zim.identity.link_keys import NoLinkKey, is_seen_by_others, own_secret
from zim.metrics import Metric, counter
from zim.net.link_keys import LinkKeys, Rest
from zim.net.zap import public_of
from zim.nodes.seldom import Seldom
from zim.protocol.speakers import honest, is_forged
from zim.topology import Topology

log = logging.getLogger(__name__)


class Guard:
    """See the module.

    Attributes:
        keys: by which nodes know each other; None if links are not encrypted.
    """

    def __init__(self, name: str) -> None:
        """name: of the node."""
        self.keys: LinkKeys | None = None
        self._name = name
        self._forged = 0
        self._seldom = Seldom()

    def take_keys(self, topology: Topology) -> None:
        """Reads the keys that a topology names, if any. Blocks for the disk: at start.

        Raises:
            NodeError: one cannot be had.
        """
        links = topology.links
        if links.keys is None:
            return
        try:
            secret = own_secret(links, self._name, public_of)
        except NoLinkKey as e:
            raise NodeError(str(e)) from None
        if is_seen_by_others(file := links.secret_file(self._name)):
            log.warning("others on this machine can read a secret", extra={"file": str(file)})
        self.keys = LinkKeys(self._name, bytes.fromhex(secret), _public_keys(topology))

    def prepare(self, topology: Topology) -> bytes:
        """The node's secret key for a changed topology, read anew. Blocks for the disk, and touches nothing.

        A node whose own key was taken away lives on with the old one, though nobody hears it.

        Raises:
            ZimError: it cannot be had.
        """
        if self.keys is None:
            return b""
        if self._name not in topology.links.public:
            return self.keys.secret
        return bytes.fromhex(own_secret(topology.links, self._name, public_of))

    def follow(self, topology: Topology, secret: bytes) -> list[Rest]:
        """Takes over what has changed. Does not switch.

        Args:
            secret: of `prepare`.

        Returns:
            what is left to do, in greenlets.
        """
        return [] if self.keys is None else self.keys.follow(secret, _public_keys(topology))

    def let_in(self, request: Sequence[bytes]) -> list[bytes] | None:
        """Whether somebody may connect; see LinkKeys.answer. Who may not is counted, and logged now and then."""
        assert self.keys is not None
        refused = self.keys.refused_links
        answer = self.keys.answer(request)
        is_refused = self.keys.refused_links > refused
        if is_refused and (times := self._seldom.times("", time.monotonic())):
            address = request[3].decode("ascii", "replace")[:100]
            log.warning("a link with an unknown key is refused", extra={"address": address, "times": times})
        return answer

    def honest(self, came: list[Any], peer: str) -> list[Any]:
        """Those messages that the peer may say; all of them without link keys."""
        if self.keys is None:
            return came
        found = honest(came, peer)
        if len(found) < len(came):
            self.pass_over(peer, next(m for m in came if is_forged(m, peer)), len(came) - len(found))
        return found

    def pass_over(self, peer: str, message: object, count: int = 1) -> None:
        """Counts messages that a peer may not say, and says so now and then. message: one of them."""
        self._forged += count
        if times := self._seldom.times(peer, time.monotonic()):
            what = type(message).__name__
            log.warning("a node says what is not its to say", extra={"peer": peer, "what": what, "times": times})

    def metrics(self) -> Iterator[Metric]:
        """What it has passed over, and whom it has refused."""
        keys = self.keys
        what = "Messages that a node says in another one's name, or that are not its to say; passed over"
        yield counter("zim_node_forged_messages_total", what, self._forged)
        what = "Messages over a link whose key has been taken away or replaced since; passed over"
        yield counter("zim_node_outdated_messages_total", what, keys.refused_messages if keys else 0)
        what = "Attempts to connect with a link key that no node has"
        yield counter("zim_node_refused_links_total", what, keys.refused_links if keys else 0)


def _public_keys(topology: Topology) -> dict[str, str]:
    """Of its nodes alone: who is not in the topology is not let in."""
    names = {node.name for node in topology.nodes}
    return {name: key for name, key in topology.links.public.items() if name in names}

"""Where a client connects next: to its addresses in turn, or where a comet that is being drained sends it. Pure.

An application that names several addresses stays among them. One that names a single one goes where it is sent, if
that is no worse: the same transport, TLS where there was TLS, and loopback only from loopback.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from zim.client.address import CometAddress, comet_address
from zim.client.errors import AddressError, ConnectionLost

MOST_S = 60.0  # of a delay that a server may ask for
STAYED_S = 1.0  # a connection that lasted for less is a bad sign
HASTY = 3  # such connections in a row, after which one waits as after any other that was lost


class SentElsewhere(ConnectionLost):
    """The server says: come back at once, to another comet.

    Attributes:
        after_s: that much later; to: addresses, the best first.
    """

    def __init__(self, text: str, after_s: float, to: Sequence[str]) -> None:
        super().__init__(text)
        self.after_s, self.to = after_s, to


def sent_on(reason: str, said: Any) -> SentElsewhere | None:
    """The error for an op 6, if that is what it says. said: its body, `{"code": 4002, "after_s": 0.2, "to": […]}`."""
    if not isinstance(said, dict) or said.get("code") not in range(4000, 4200) or "after_s" not in said:
        return None
    after_s, to = said["after_s"], said.get("to")
    is_number = isinstance(after_s, int | float) and not isinstance(after_s, bool) and math.isfinite(after_s)
    named = [one for one in to if isinstance(one, str)] if isinstance(to, list) else []
    later_s = min(max(0.0, after_s), MOST_S) if is_number else 0.0
    return SentElsewhere(f"sent on by the server: {reason}", later_s, named)


class Itinerary:
    """The addresses of one listener.

    Args:
        addresses: as the application names them; at least one.
    """

    def __init__(self, addresses: Sequence[CometAddress]) -> None:
        self.addresses = addresses
        self._number = 0
        self._named: CometAddress | None = None
        self._hasty = 0

    def next(self) -> CometAddress:
        """The one to try now."""
        named, self._named = self._named, None
        if named is not None:
            return named
        self._number += 1
        return self.addresses[(self._number - 1) % len(self.addresses)]

    def send_on(self, here: CometAddress, error: SentElsewhere, stayed_s: float) -> float | None:
        """A server sends it to another comet: `next` is that one.

        Args:
            here: where it is.
            stayed_s: for how long it was.

        Returns:
            After how many seconds; None where it is to wait as after any lost connection.
        """
        self._hasty = 0 if stayed_s >= STAYED_S else self._hasty + 1
        known = {_place(address): number for number, address in enumerate(self.addresses)}
        for text in error.to:
            with contextlib.suppress(AddressError):
                address = comet_address(text)
                if (number := known.get(_place(address))) is not None:
                    self._number = number
                    break
                if len(self.addresses) == 1 and is_as_good(address, here):
                    self._named = address
                    break
        else:
            if len(self.addresses) > 1 and _place(self.addresses[self._number % len(self.addresses)]) == _place(here):
                self._number += 1
        return error.after_s if self._hasty <= HASTY else None


def is_as_good(address: CometAddress, here: CometAddress) -> bool:
    """Whether one who is here may be sent to an address that nobody has told it of."""
    is_alike = address.transport == here.transport and address.is_tls >= here.is_tls
    return is_alike and (not _is_loopback(address.host) or _is_loopback(here.host))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _place(address: CometAddress) -> tuple[str, bool, str, int, str]:
    return address.transport, address.is_tls, address.host.lower(), address.port, address.path

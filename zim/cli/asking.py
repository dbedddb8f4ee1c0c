"""Asks a logic node's HTTP API, and says in one sentence why there is no answer."""

from __future__ import annotations

import http.client

from zim.client import ZimError
from zim.client.address import split_address

TIMEOUT_S = 10.0  # for an answer; a logic waits five seconds for a router at most


class NotTold(ZimError):
    """There is no answer."""


def get(where: str, path: str) -> tuple[int, bytes]:
    """Status and body of the answer to a GET.

    Args:
        where: `host:port`.
        path: percent-encoded, with its query.

    Raises:
        AddressError: `where` is no address.
        NotTold: there is no answer.
    """
    connection = http.client.HTTPConnection(*split_address(where), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except ConnectionRefusedError:
        raise NotTold(f"nothing listens on {where}; is the fabric up? zim up") from None
    except TimeoutError:
        raise NotTold(f"no answer from {where} in {TIMEOUT_S:g} s") from None
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NotTold(f"no answer from {where}: {reason}") from None
    finally:
        connection.close()

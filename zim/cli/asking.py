"""Asks a logic node's HTTP API, and says in one sentence why there is no answer."""

from __future__ import annotations

import http.client
import ssl

import msgspec

from zim.cli.credentials import HOW_TO_SHOW, api_key
from zim.cli.lines import printable
from zim.cli.patience import patience
from zim.client import ZimError
from zim.client.address import logic_address
from zim.client.http import OF_SILENCE, HttpResponse, check_key, line_of
from zim.client.tls import not_verified
from zim.program import zim_command

TIMEOUT_S = 10.0  # for an answer; a logic waits five seconds for a router at most


class NotTold(ZimError):
    """There is no answer."""


class Rejected(ZimError):
    """The question is wrong, or is not for whom asks it."""


class _Problem(msgspec.Struct):
    detail: str
    expected: str = ""


def why_not(where: str, status: int, body: bytes, wanted: str) -> Rejected | NotTold:
    """The error of an answer that is not the one that was wanted.

    Args:
        where: who has answered, and wanted what that should be, for people.
        body: of the answer.
    """
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        hint = (line_of(body) if status == 400 else "") or "is this a logic node's HTTP port?"
        return NotTold(f"HTTP {status} from {where} is no {wanted}; {hint}")
    why = problem.detail + (f"; right is: {problem.expected}" if problem.expected else "")
    if status == 401 and not api_key():
        why = f"{why}; {HOW_TO_SHOW}"
    return (Rejected if 400 <= status < 500 else NotTold)(printable(why))


def get(where: str, path: str) -> tuple[int, bytes]:
    """Status and body of the answer to a GET.

    Args:
        where: `host:port`, or `https://host`.
        path: percent-encoded, with its query.

    Raises:
        AddressError: `where` is no address.
        ClientError: the API key is none.
        NotTold: there is no answer.
    """
    _, host, port, is_tls = logic_address(where)
    if is_tls:
        tls = ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=tls)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    connection.response_class = HttpResponse
    key = api_key()
    try:
        with patience(f"no answer from {where} yet"):
            connection.request("GET", path, headers={"Authorization": f"Bearer {check_key(key)}"} if key else {})
            response = connection.getresponse()
            return response.status, response.read()
    except ConnectionRefusedError:
        raise NotTold(f"nothing listens on {where}; is the fabric up? {zim_command()} up") from None
    except TimeoutError:
        raise NotTold(f"no answer from {where} in {TIMEOUT_S:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise NotTold(not_verified(where, error)) from None
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = OF_SILENCE if isinstance(error, ConnectionResetError) else ""
        raise NotTold(f"no answer from {where}: {reason}{hint}") from None
    finally:
        connection.close()

"""What can go wrong between an application and the fabric. Each text is one sentence for a person."""

from zim.errors import ZimError


class ClientError(ZimError):
    """The root of what zim.client raises."""


class AddressError(ClientError):
    """An address is not `host:port`, or a URL not what it should be."""


class ConnectionLost(ClientError):
    """A connection has ended. The listener tells it as a state and connects again."""


class Unreachable(ConnectionLost):
    """A connection cannot be made."""


class CertificateError(ClientError):
    """The certificate of a server cannot be verified: it is not who it should be, or signed by somebody unknown."""


class LoginRefused(ClientError):
    """The fabric closed the connection before it answered the login."""


class SentAway(ClientError):
    """The fabric has ended the connection, and would end the next one in the same way: who this says it is, or what it
    says, is wrong.

    Attributes:
        code: of the reason, 4400 to 4599, see docs/client-protocol.md.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class PushError(ClientError):
    """A push was not answered with success.

    Attributes:
        status: the HTTP status; 0 if there was no answer, or none over HTTP.
        id: the idempotency key that it was pushed with; "" where it had none.
    """

    def __init__(self, text: str, status: int = 0, id: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.id = id


class PushRefused(PushError):
    """The request itself is wrong. The same again will be refused again."""


class PushConflict(PushRefused):
    """Another push with this id (idempotency key) has been accepted before."""


class PushUnavailable(PushError):
    """Surely not accepted, for now. Trying again is safe.

    Attributes:
        retry_after_s: how long the fabric asks to wait first; 0 if it does not say.
    """

    def __init__(self, text: str, status: int = 0, id: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(text, status, id)
        self.retry_after_s = retry_after_s


class PushUntrusted(PushUnavailable, CertificateError):
    """Not sent at all: no certificate of the nodes can be verified. Trying again is of no use."""


class PushUnknown(PushError):
    """Nobody knows whether it was accepted. Trying again may push it twice, unless with the same id."""

"""Who a client is: a token, or what is asked for a fresh one. A fresh one is shown before the old one ends."""

from __future__ import annotations

import time
from collections.abc import Callable

from zim.client.errors import ClientError

Token = str | int | Callable[[], str | int]

NO_TOKEN = "no token"  # begins what is said where the application gives none
_FAR_S = 1e9  # as good as never
AT = 0.75  # of a token's time, when the next one is shown
AGAIN_S = 5.0  # after the fabric could not tell, or the application had none


class TokenSource:
    """See the module. The clock is monotonic.

    Attributes:
        next_at: when another token is to be shown; None for never.
    """

    def __init__(self, token: Token) -> None:
        """Raises: ClientError: a token that cannot be."""
        self._token = token
        self._last: str | int = ""
        self._is_new = True
        self.next_at: float | None = None
        if not callable(token):
            _check(token)

    @property
    def is_fixed(self) -> bool:
        """There is no other one than this."""
        return not callable(self._token)

    def take(self) -> str | int:
        """A token; asks the application for it, if it is to be asked.

        Raises:
            ClientError: it gives none.
        """
        if not callable(self._token):
            return self._token
        try:
            found = self._token()
        except ClientError as e:  # in words of its own
            raise ClientError(f"{NO_TOKEN}: {e}") from e
        except Exception as e:
            raise ClientError(f"{NO_TOKEN}: {type(e).__name__}: {e}") from e
        _check(found)
        self._is_new, self._last = found != self._last, found
        return found

    def on_expires(self, expires_s: object) -> None:
        """The fabric has said how long the one that was shown holds; None if it did not."""
        self.next_at = None
        if isinstance(expires_s, int | float) and not isinstance(expires_s, bool) and not self.is_fixed:
            least_s = 0.1 if self._is_new else AGAIN_S  # an application that gives the same again has no other yet
            self.next_at = time.monotonic() + max(least_s, min(max(expires_s, 0), _FAR_S) * AT)

    def again(self) -> None:
        """It did not work this time."""
        self.next_at = time.monotonic() + AGAIN_S


def _check(token: object) -> None:
    if isinstance(token, bool) or not isinstance(token, str | int):
        raise ClientError(f"a token is a string, a number, or a function that gives one, not {type(token).__name__}")

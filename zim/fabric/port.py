"""The port of the fabric: what a backend can ask for. The logic node implements it; HTTP and ZeroMQ call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from zim.fabric.answers import Piece, Receipt
from zim.fabric.principals import Principal
from zim.fabric.push import Published, Push
from zim.fabric.questions import Question

A = TypeVar("A")


class Fabric(Protocol):
    """What a backend can ask for. Every method switches.

    Whoever asks is a principal. What it may not do is refused here, for HTTP and ZeroMQ alike.
    """

    def publish(self, push: Push, who: Principal) -> Published:
        """Publish one body to streams. Never raises for faults of the fabric: they are in the answer, as is that its
        principal may not."""

    def publish_many(self, pushes: Sequence[Push], who: Principal) -> Sequence[Published]:
        """Publish many at once, cheaper than one by one. One answer for each, in their order."""

    def ask(self, question: Question[A], who: Principal) -> A:
        """The answer to a question. Routers that are silent are named in it, if the question says so.

        Raises:
            zim.fabric.principals.Forbidden: its principal may not ask that.
            zim.errors.Unavailable: a router did not answer, and surely nothing was done.
            zim.errors.Unknown: it is an order, a router did not answer, and it or another one may have obeyed.
        """

    def history(self, stream: str, after: int, limit: int, who: Principal) -> Piece:
        """A piece of a stream: at most `limit` messages after an offset, fewer where they get large.

        Raises:
            zim.fabric.principals.Forbidden: its principal may not read that.
            zim.errors.Unavailable: its router did not answer.
        """

    def receipt(
        self, push_id: str, who: Principal, wait_s: float = 0.0, is_gone: Callable[[], bool] = lambda: False
    ) -> Receipt:
        """The answer to PushReceipt, as soon as it is final.

        Args:
            push_id: from Published.
            wait_s: for how long to wait for that at most.
            is_gone: whether nobody wants the answer any more.

        Raises:
            zim.fabric.principals.Forbidden: its principal may not ask that.
        """

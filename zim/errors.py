"""Errors above the protocol. See zim.protocol.errors for their root."""

from zim.protocol.errors import ZimError

__all__ = ["NodeError", "TopologyError", "Unavailable", "ZimError"]


class TopologyError(ZimError):
    """The topology cannot be used. Every problem found is listed, each naming its dotted key.

    Attributes:
        problems: one sentence each, `comet[0].tcp: …`.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NodeError(ZimError):
    """A node cannot start or go on, for a reason that a restart does not cure: a port in use, a lock held."""


class Unavailable(ZimError):
    """Another node did not answer in time. Nothing was changed, or it is not known whether anything was.

    Attributes:
        node: who did not answer.
    """

    def __init__(self, node: str, what: str) -> None:
        super().__init__(f"{node}: {what}")
        self.node = node

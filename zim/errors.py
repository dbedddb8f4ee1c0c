"""The errors of zim, and their root. At the bottom of the house, so that no import goes up."""


class ZimError(Exception):
    """Something that zim can say in one sentence. Its text is for a person."""


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


class BadCertificate(NodeError):
    """A certificate, or its key, cannot be used. Its text never holds anything of a key."""


class NotNow(NodeError):
    """A node cannot start for a reason that passes by itself: a full disk."""


class Unavailable(ZimError):
    """Surely nothing was done.

    Attributes:
        who: could not do it: a node, the log.
        why: for people.
    """

    def __init__(self, who: str, why: str) -> None:
        super().__init__(f"{who}: {why}")
        self.who, self.why = who, why


class Unknown(ZimError):
    """It cannot be told whether anything was done.

    Attributes:
        who: was asked to do it: a node, the log.
        why: for people.
    """

    def __init__(self, who: str, why: str) -> None:
        super().__init__(f"{who}: {why}")
        self.who, self.why = who, why

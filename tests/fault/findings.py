"""What the checker finds. Values only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "lost",
    "duplicate",
    "reordered",
    "unexpected",
    "untold",
    "disagreement",
    "broken",
    "late",
    "cursor",
    "unexplained",
    "told",
]
Where = Literal["", "start", "middle", "end"]

FAULTS: tuple[Kind, ...] = (
    "lost",
    "duplicate",
    "reordered",
    "unexpected",
    "untold",
    "disagreement",
    "broken",
    "late",
    "cursor",
    "unexplained",
)


@dataclass(frozen=True)
class Finding:
    """One thing that should not be.

    Attributes:
        kind: lost: owed and not received. duplicate: received, or stored, twice. reordered: came, or is stored, after
            one that it stands before. unexpected: never pushed, answered 503, under the key of another push, of a
            stream that it is not in. untold: offsets jump, and nobody said so. disagreement: the same offset is another
            message elsewhere, or an answer told another offset. broken: the protocol was. late: received after its
            ttl. cursor: an acknowledgement counts for less than was answered, or for more than was asked. unexplained:
            the client was told that something is gone, and nothing can have taken it away. told: the same, and
            retention or a router's end explains it; no fault in itself.
        where: of what is lost, in the client's time on that stream.
        who: the client's name, `log`, or `publisher`.
        at: when the client was told, or the push was asked.
    """

    kind: Kind
    who: str
    stream: str
    number: int = 0
    offset: int = 0
    where: Where = ""
    at: float = 0.0
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        """It breaks a promise."""
        return self.kind in FAULTS

    def __str__(self) -> str:
        kind = f"{self.kind} at the {self.where}" if self.where else self.kind
        number = f" push {self.number}" if self.number > 0 else ""
        offset = f" offset {self.offset}" if self.offset else ""
        return f"{kind}: {self.who} {self.stream}{number}{offset} at {self.at:.2f} s  {self.detail}".rstrip()


def summary(findings: list[Finding]) -> dict[str, int]:
    """How many of each kind, lost ones by where; kinds without any are 0."""
    kinds = [kind for kind in (*FAULTS, "told") if kind != "lost"] + ["lost start", "lost middle", "lost end"]
    counts = Counter(f"lost {f.where}" if f.kind == "lost" else f.kind for f in findings)
    return {kind: counts[kind] for kind in sorted(kinds)}

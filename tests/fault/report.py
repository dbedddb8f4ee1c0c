"""What came out of a run: the checker's findings, the receipts, the log, and what was watched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import gevent

from tests.fault.backend import Answer, Backend
from tests.fault.findings import Finding, summary
from tests.fault.history import Connected, History, Push, Received

FORGOTTEN_S = 2.0  # a router stores receipts once a second; one that is killed has not heard of more
SHOWN = 40  # findings that are printed one by one
ASKED = 5_000  # receipts, at most
ASKERS = 8  # at once
ATTEMPTS, PAUSE_S = 40, 0.5  # of a question, and before the next one
LEDGER = ("delivered", "gone", "shed", "expired", "unknown", "pending")


@dataclass
class Report:
    """What came out.

    Attributes:
        ledger: the sums over the receipts that were asked for; None where nothing was.
        unbalanced: receipts that do not add up, or stay pending.
        unbounded: what grew beyond its limit.
        watched: what was watched, for people.
    """

    history: History
    findings: list[Finding]
    answers: Counter[int] = field(default_factory=Counter)
    ledger: Counter[str] | None = None
    unbalanced: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    unbounded: list[str] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        """Findings that break a promise."""
        return [f for f in self.findings if f.is_fault]

    @property
    def is_good(self) -> bool:
        """Every promise was kept."""
        return not (self.faults or self.unbalanced or self.crashes or self.unbounded)


def ledger(backend: Backend, history: History) -> tuple[Counter[str], list[str]]:
    """The sums over the receipts of accepted pushes, and those that do not balance."""
    accepted = [push for push in history.pushes if push.verdict == "accepted" and push.push_id]
    asked = accepted[:: len(accepted) // ASKED + 1]
    parts = [gevent.spawn(_ledger_of, backend.another(), history, asked[i::ASKERS]) for i in range(ASKERS)]
    sums: Counter[str] = Counter()
    wrong: list[str] = []
    for part in parts:
        of_part, wrong_there = part.get()
        sums.update(of_part)
        wrong += wrong_there
    return sums, wrong


def _ledger_of(backend: Backend, history: History, pushes: Sequence[Push]) -> tuple[Counter[str], list[str]]:
    sums: Counter[str] = Counter()
    wrong = []
    for push in pushes:
        answer = _receipt(backend, push)
        if answer.status == 404 and may_be_forgotten(push, history):
            sums["forgotten"] += 1
            continue
        if answer.status != 200:
            wrong.append(f"push {push.number} ({push.push_id}) of {push.asked_at:.2f} s: {answer.status} {answer.json}")
            continue
        counts = {key: answer.json.get(key, 0) for key in ("targeted", "offline", *LEDGER)}
        sums.update(counts)
        if counts["targeted"] != sum(counts[key] for key in LEDGER) or counts["pending"]:
            wrong.append(f"push {push.number} ({push.push_id}) of {push.asked_at:.2f} s: {counts}")
    backend.close()
    return sums, wrong


def _receipt(backend: Backend, push: Push) -> Answer:
    """What becomes of a push may be asked again: a router that is late, or a packet that is, is no fault."""
    for _ in range(ATTEMPTS):
        answer = backend.ask("GET", f"/api/pushes/{push.push_id}")
        if answer.status not in (0, 503):
            break
        gevent.sleep(PAUSE_S)
    return answer


def may_be_forgotten(push: Push, history: History) -> bool:
    """Whether a router was killed before it can have stored the receipt."""
    stored_at = push.answered_at + FORGOTTEN_S
    for begins, ends in history.waits:
        if begins < stored_at < ends + FORGOTTEN_S:
            stored_at = ends + FORGOTTEN_S
    return any(push.asked_at <= at < stored_at for at in history.router_kills)


def crashes(log: str) -> list[str]:
    """What nodes said on their way out, beside what was done to them."""
    signs = ("Traceback", "Assertion failed", "given up", "greenlet failed")
    return [line for line in log.splitlines() if any(sign in line for sign in signs)]


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    pushes, events = report.history.pushes, [e for c in report.history.clients for e in c.events]
    kinds = {
        "with a ttl": sum(push.ttl_s > 0 for push in pushes),
        "in trains": sum(bool(push.train) for push in pushes),
        "under an old key": sum(push.reuses > 0 for push in pushes),
    }
    yield f"pushes: {dict(Counter(push.verdict for push in pushes))}, {kinds}; HTTP answers: {dict(report.answers)}"
    connected, received = (sum(isinstance(e, kind) for e in events) for kind in (Connected, Received))
    yield f"clients: {len(report.history.clients)}, connections: {connected}, received: {received}"
    for dialect in ("zim", "goim"):
        names = {client.name for client in report.history.clients if client.dialect == dialect}
        counts = summary([f for f in report.findings if f.who in names])
        yield f"{dialect} clients: " + ", ".join(f"{kind} {count}" for kind, count in counts.items())
    counts = summary([f for f in report.findings if f.who in ("log", "publisher")])
    yield f"log ({len(report.history.logs)} streams): " + ", ".join(f"{kind} {n}" for kind, n in counts.items())
    yield from (f"  {finding}" for finding in report.faults[:SHOWN])
    if len(report.faults) > SHOWN:
        yield f"  … and {len(report.faults) - SHOWN} more"
    told = Counter((f.stream, f.detail.rpartition("; ")[2]) for f in report.findings if not f.is_fault)
    yield from (f"  told {count} times: {stream}, {why}" for (stream, why), count in told.items())
    yield f"ledger: {dict(report.ledger) if report.ledger is not None else 'no receipts'}"
    yield from (f"  unbalanced: {text}" for text in report.unbalanced[:SHOWN])
    yield from (f"  crash: {text}" for text in report.crashes[:SHOWN])
    yield from report.watched
    yield from (f"  without a bound: {text}" for text in report.unbounded)
    yield "every promise was kept" if report.is_good else "PROMISES WERE BROKEN"

"""What a logic tells of itself, and of the whole fabric: the ledger over all routers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zim.fabric.answers import Ledger
from zim.metrics import Metric, counter, gauge

REFUSED = "refused"  # stands for the path of requests that were not read to their end


def http_metrics(answered: Mapping[tuple[str, int], int], refused: Mapping[int, int]) -> Iterator[Metric]:
    """Requests.

    Args:
        answered: see App.
        refused: see HttpServer.
    """
    requests: dict[tuple[str, ...], int] = {(path, str(status)): n for (path, status), n in answered.items()}
    requests |= {(REFUSED, str(status)): n for status, n in refused.items()}
    yield counter("zim_logic_http_requests_total", "Requests that were answered", requests, "path", "status")


def fabric_metrics(ledger: Ledger) -> Iterator[Metric]:
    """The ledger, as `zim ledger` prints it. Gauges, for a router that is killed forgets up to a second of it.

    While a router is silent there are no numbers: a sum without it would be wrong.
    """
    told = not ledger.silent
    yield gauge("zim_fabric_silent_routers", "Routers that did not answer", len(ledger.silent))
    numbers = [
        ("zim_fabric_pushes", "Pushes that were kept", ledger.pushes),
        ("zim_fabric_targeted_sessions", "Sessions that pushes were for, all in all", ledger.targeted),
        ("zim_fabric_pending_sessions", "Of which it is not known yet", ledger.pending),
        ("zim_fabric_offline_users", "Users of pushes who had no session", ledger.offline),
    ]
    for name, what, number in numbers:
        yield gauge(name, what, number if told else {})
    yield gauge("zim_fabric_sessions", "What became of them", ledger.outcomes if told else {}, "outcome")

"""What a logic tells of itself, and of the whole fabric: the ledger over all routers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zim.fabric.answers import Ledger
from zim.metrics import Metric, counter, gauge
from zim.nodes.logic.desk import Desk
from zim.nodes.logic.quotas import Quotas

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


def login_metrics(desk: Desk) -> Iterator[Metric]:
    """Who came, and what others were asked about it."""
    results = {"ok": desk.admitted, **desk.denied}
    yield counter("zim_logic_auths_total", "Tokens that comets asked about", results, "result")
    callers = (desk.connect, desk.join)
    asked: dict[tuple[str, ...], int] = {(c.name, how): n for c in callers for how, n in c.results.items()}
    yield counter("zim_logic_callouts_total", "Questions to the application", asked, "callout", "result")
    open_now = {c.name: int(c.is_open) for c in callers}
    yield gauge("zim_logic_callout_circuit_open", "The application does not answer: nobody asks", open_now, "callout")
    sets = {issuer: known for issuer, known in desk.issuers.items() if known.issuer.jwks}
    fetched: dict[tuple[str, ...], int] = {(i, how): n for i, known in sets.items() for how, n in known.results.items()}
    yield counter("zim_logic_key_fetches_total", "Fetches of the keys of issuers", fetched, "issuer", "result")
    keys = {issuer: len(known.keys) for issuer, known in desk.issuers.items()}
    yield gauge("zim_logic_keys", "Keys of issuers that are known", keys, "issuer")


def limit_metric(quotas: Quotas, desk: Desk) -> Metric:
    """What was refused because of a limit."""
    refused = {**quotas.refusals.by_limit, **desk.often.refusals.by_limit}
    return counter("zim_logic_limited_total", "What was refused because of a limit", refused, "limit")


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

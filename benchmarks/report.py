"""Figures of a run, as a table for people and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass
class Figures:
    """One run, or the medians of several. None where something was not measured.

    Attributes:
        bare_send_cpu_us: what one send() costs on this machine, without any of zim.
        notes: what one must know to read the figures.
        problems: why the run failed; empty if it did not.
    """

    subscribers: int
    comets: int
    expected: int | None = None
    received: int | None = None
    pushes_accepted: int | None = None
    pushes_per_s: float | None = None
    http_p50_ms: float | None = None
    http_p99_ms: float | None = None
    push_late_max_ms: float | None = None
    messages_per_s: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_p999_ms: float | None = None
    latency_max_ms: float | None = None
    comet_cpu_us_per_delivery: float | None = None
    bare_send_cpu_us: float | None = None
    generator_cpu_share: float | None = None
    connects_per_s: float | None = None
    memory_per_connection_kb: float | None = None
    idle_push_p50_ms: float | None = None
    idle_push_p99_ms: float | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


_ROWS = (
    ("expected messages", ("expected",), "{:,.0f}"),
    ("received messages", ("received",), "{:,.0f}"),
    ("pushes accepted by HTTP", ("pushes_accepted",), "{:,.0f}"),
    ("pushes/s", ("pushes_per_s",), "{:,.1f}"),
    ("HTTP answer p50 / p99", ("http_p50_ms", "http_p99_ms"), "{:,.1f} ms"),
    ("latest push after its time", ("push_late_max_ms",), "{:,.1f} ms"),
    ("messages/s", ("messages_per_s",), "{:,.0f}"),
    (
        "HTTP request → client p50 / p99 / p99.9 / max",
        ("latency_p50_ms", "latency_p99_ms", "latency_p999_ms", "latency_max_ms"),
        "{:,.1f} ms",
    ),
    ("comet CPU per delivery", ("comet_cpu_us_per_delivery",), "{:,.2f} us"),
    ("CPU of a bare send() here", ("bare_send_cpu_us",), "{:,.2f} us"),
    ("CPU of this load generator", ("generator_cpu_share",), "{:.0%} of a core"),
    ("connects/s", ("connects_per_s",), "{:,.0f}"),
    ("comet memory per idle connection", ("memory_per_connection_kb",), "{:,.1f} kB"),
    ("push to an idle client p50 / p99", ("idle_push_p50_ms", "idle_push_p99_ms"), "{:,.2f} ms"),
)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank). `values` is not empty."""
    ordered = sorted(values)
    rank = -int(-share * len(ordered) // 1)
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def medians(runs: list[Figures]) -> Figures:
    """The median of each figure; the problems of all."""
    result = Figures(runs[0].subscribers, runs[0].comets)
    for name in asdict(result):
        values = [getattr(run, name) for run in runs if getattr(run, name) is not None]
        if values and not isinstance(values[0], list):
            setattr(result, name, statistics.median(values))
    for number, run in enumerate(runs, 1):
        result.notes += [f"run {number}: {text}" for text in run.notes]
        result.problems += [f"run {number}: {text}" for text in run.problems]
    return result


def show(figures: Figures, title: str) -> None:
    """Prints the table, and notes and problems below it."""
    console = Console()
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, names, form in _ROWS:
        values = [getattr(figures, name) for name in names]
        if any(value is not None for value in values):
            table.add_row(label, " / ".join("–" if value is None else form.format(value) for value in values))
    console.print(table)
    for text in figures.notes:
        console.print(text, markup=False, highlight=False)
    for text in figures.problems:
        console.print(f"FAILED: {text}", style="red", markup=False, highlight=False)

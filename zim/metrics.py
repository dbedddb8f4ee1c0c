"""What a node tells of itself, in Prometheus' text format. The only importer of prometheus_client.

Nothing is counted for it twice: it is read when it is asked for, out of the numbers that the node keeps anyway. So a
node's hot path pays for plain integers, and for nothing else.

Names and types: https://prometheus.io/docs/practices/naming/. A counter never goes back but with its process; what may
go back is a gauge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from typing_extensions import override

__all__ = ["CONTENT_TYPE_LATEST", "Histogram", "Metric", "Page", "counter", "gauge"]

Value = float | Mapping[str, float] | Mapping[tuple[str, ...], float]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def counter(name: str, what: str, value: Value, *labels: str) -> Metric:
    """A number that only grows.

    Args:
        name: ends with `_total`.
        what: says what is counted, for people.
        value: the number; or one for each value of the label, or for each tuple of values of the labels.
        labels: names of the labels.
    """
    return _fill(CounterMetricFamily(name, what, labels=labels), value)


def gauge(name: str, what: str, value: Value, *labels: str) -> Metric:
    """A number that may go up and down. See `counter`."""
    return _fill(GaugeMetricFamily(name, what, labels=labels), value)


def _fill(family: CounterMetricFamily | GaugeMetricFamily, value: Value) -> Metric:
    if not isinstance(value, Mapping):
        family.add_metric((), value)
        return family
    for label, number in value.items():
        family.add_metric((label,) if isinstance(label, str) else label, number)
    return family


class Histogram:
    """How often something was how large. Counting costs a search among a dozen numbers."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """
        Args:
            bounds: upper ends of the buckets, ascending, each included; one without an end comes on top.
        """
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def metric(self, name: str, what: str) -> Metric:
        """As it is now."""
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramMetricFamily(name, what, buckets=buckets, sum_value=self._sum)


class Page(CollectorRegistry):
    """All metrics of one process: the node's, and `process_…`: memory, CPU time, open files."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        """
        Args:
            read: what the node has to tell, at the moment. It may switch.
        """
        super().__init__()
        self._read = read
        ProcessCollector(registry=self)

    @override
    def collect(self) -> Iterable[Metric]:
        """The node's metrics, then the process'. Switches: where `read` does."""
        yield from self._read()
        yield from super().collect()

    def render(self) -> bytes:
        """The text, of the type CONTENT_TYPE_LATEST. Switches: where `read` does."""
        return generate_latest(self)

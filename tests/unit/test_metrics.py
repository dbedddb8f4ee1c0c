"""The metrics page: what comes out is what Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from zim.metrics import SIZES, Histogram, Metric, Page, counter, gauge


def samples(*metrics: Metric) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a page with these says, but for the process's own."""
    text = Page(lambda: metrics).render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


def test_counters_and_gauges() -> None:
    pair: dict[tuple[str, ...], float] = {("1", "2"): 5}
    assert samples(
        counter("zim_a_total", "a", 3),
        gauge("zim_b", "b", {"x": 1, 'y"\n': 2}, "one"),
        gauge("zim_c", "c", pair, "one", "two"),
        gauge("zim_none", "none", {}, "one"),
        gauge("zim_flag", "flag", True),
    ) == {
        ("zim_a_total", ()): 3.0,
        ("zim_b", (("one", "x"),)): 1.0,
        ("zim_b", (("one", 'y"\n'),)): 2.0,
        ("zim_c", (("one", "1"), ("two", "2"))): 5.0,
        ("zim_flag", ()): 1.0,
    }


@given(st.lists(st.integers(0, 2_000)))
def test_a_histogram_counts_what_is_at_most_its_bounds(values: list[int]) -> None:
    histogram = Histogram(SIZES)
    for value in values:
        histogram.observe(value)
    found = samples(histogram.metric("zim_size", "size"))
    assert found["zim_size_count", ()] == len(values)
    assert found["zim_size_sum", ()] == sum(values)
    for bound in SIZES:
        assert found["zim_size_bucket", (("le", str(bound)),)] == sum(value <= bound for value in values)


def test_it_is_read_when_it_is_asked_for() -> None:
    asked = 0

    def read() -> Iterable[Metric]:
        nonlocal asked
        asked += 1
        yield counter("zim_asked_total", "asked", asked)

    page = Page(read)
    assert asked == 0
    assert b"\nzim_asked_total 1.0\n" in page.render()
    assert b"\nzim_asked_total 2.0\n" in page.render()


def test_two_pages_share_nothing() -> None:
    one, two = Page(lambda: [gauge("zim_a", "a", 1)]), Page(lambda: [gauge("zim_a", "a", 2)])
    assert (b"zim_a 1.0" in one.render(), b"zim_a 2.0" in two.render()) == (True, True)


def test_what_cannot_be_read_is_not_half_told() -> None:
    def read() -> Iterable[Metric]:
        yield gauge("zim_a", "a", 1)
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        Page(read).render()

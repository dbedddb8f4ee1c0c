"""What `zim status` prints."""

from __future__ import annotations

from typing import Any

import pytest

from zim.cli.status import WIDTH, size_text, span_text, table_text


def node(name: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"node": name, "kind": name.split("-")[0], "state": "ready", "why": "", "for_s": 3_601.0}
    return found | {"restarts": 0, "pid": 4_194_304, "missing": [], "answers": True, "version": "1.0"} | more


def said(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"fabric": "t", "host": None, "version": "1.0", "nodes": list(nodes), "shards": [], "restart": None} | more


def test_large_numbers_fit_into_80_columns() -> None:
    large = {"connections": 1_000_000, "backlog_bytes": 64 << 20, "lag_ms": 12_345.6, "restarts": 1_234}
    shards = [{"shard": "shard-1024", "owner": "router-100", "term": 1_795_764_759_641, "to": "router-101"}]
    text = table_text(said(node("comet-100", state="draining", for_s=9e7, **large), shards=shards))
    assert "1,000,000" in text
    assert "1795764759641" in text
    assert "router-101" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text


def test_what_is_not_as_it_should_be_is_said_in_words() -> None:
    lost = node("comet-1", state="drained", why="ended before it was done: SIGKILL", pid=0, answers=False)
    text = table_text(said(lost, node("job-1", answers=False), node("logic-1", missing=["router-1 is not connected"])))
    assert "comet-1 is drained: ended before it was done: SIGKILL\n" in text
    assert "job-1 does not answer: it stands still, or is overloaded\n" in text
    assert [line.split()[1:3] for line in text.splitlines() if line.startswith(" job-1")] == [["no", "answer"]]
    assert "comet-1 does not answer" not in text
    assert "logic-1: router-1 is not connected\n" in text


def test_a_node_that_starts_for_long_has_said_why() -> None:
    nodes = [node("router-1", state="starting", for_s=9.0, answers=False), node("job-1", state="starting", for_s=1.0)]
    text = table_text(said(*nodes))
    assert "router-1 has been starting for 9 s: its log says what it waits for\n" in text
    assert text.count("its log") == 1


def test_a_restart_and_other_versions_are_told() -> None:
    restart = {"node": "comet-2", "done": ["router-1"], "left": ["comet-1"], "is_over": False}
    text = table_text(said(node("comet-1"), node("router-1", version="1.1"), restart=restart))
    assert "versions: 1.0, 1.1; zim up is 1.0\n" in text
    assert "a restart is under way: comet-2; 1 done, 1 left\n" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119.9, "119 s"), (120, "2 min"), (7_199, "119 min"), (7_200, "2 h"), (172_800, "2 d")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span_text(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (10_239, "10239 B"), (10_240, "10 KiB"), (64 << 20, "64 MiB")])
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text

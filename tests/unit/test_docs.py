"""What the README and the docs claim, as far as a machine can tell."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import click
import pytest

from zim import config
from zim.cli import main
from zim.retention import Retention, Rule

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """Code blocks of a language: page and text."""
    return [
        (page.name, text)
        for page in PAGES
        for text in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for path in re.findall(r"`((?:zim|tests|docs|examples|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_examples_compile(page: str, text: str) -> None:
    compile(text, page, "exec")


def commands() -> list[str]:
    """Every zim command line of the pages' shell blocks."""
    lines = [line for _, text in blocks("sh") for line in text.splitlines()]
    return [line for line in lines if line.startswith((".venv/bin/zim ", "zim "))]


def mentions() -> list[str]:
    """Every zim command that running text speaks of, perhaps without what it takes."""
    spans = [span for page in PAGES for span in re.findall(r"`(zim [^`\n]+)`", page.read_text())]
    return sorted(set(spans))


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and its arguments."""
    command: click.Command = main
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(main), words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line: str) -> None:
    command, arguments = find(shlex.split(line, comments=True)[1:])
    command.make_context(command.name, arguments)


@pytest.mark.parametrize("mention", mentions())
def test_options_that_are_mentioned_exist(mention: str) -> None:
    command, arguments = find(mention.split()[1:])
    known = {option for parameter in command.params for option in parameter.opts}
    assert {a for a in arguments if a.startswith("-")} <= known


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for _, text in blocks("sh"):
        for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_key_of_the_topology_is_documented() -> None:
    text = (ROOT / "docs" / "topology.md").read_text()
    kinds = (config.Router, config.Logic, config.Job, config.Comet)
    of_fabric = {"name", "data_dir", "max_body_bytes", "idempotency_s", "receipts_s"}
    of_streams = {f.name for f in dataclasses.fields(Retention)} - {"classes"} | {"count", "age_s"}
    for key in {f.name for kind in kinds for f in dataclasses.fields(kind)} | of_fabric | of_streams:
        assert f"`{key}`" in text, key


def test_documented_defaults_of_the_fabric_are_true() -> None:
    text = (ROOT / "docs" / "topology.md").read_text()
    defaults = {f.name: f.default for f in dataclasses.fields(config.Topology)}
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
    assert [key for key, _ in rows] == ["max_body_bytes", "idempotency_s", "receipts_s"]
    for key, default in rows:
        assert defaults[key] == int(default), key
    for key, count, days in re.findall(r"^\| `(\w+)` \| (\d+), (\d+) days? \|", text, re.MULTILINE):
        assert getattr(Retention(), key) == Rule(int(count), int(days) * 86_400.0), key


@pytest.mark.parametrize("kind", [config.Router, config.Logic, config.Job, config.Comet])
def test_documented_defaults_are_true(kind: type[config.Node]) -> None:
    rows = re.findall(
        rf"^\| {kind.kind} \| (.*?) \| (.*?) \|", (ROOT / "docs" / "topology.md").read_text(), re.MULTILINE
    )
    fields = {f.name: f.default for f in dataclasses.fields(kind)}
    for keys, defaults in rows:
        for key, default in zip(re.findall(r"`(\w+)`", keys), defaults.split(", "), strict=False):
            if default in ("required", "at least one"):
                continue
            number, _, unit = default.strip('`"').partition(" ")
            want = fields[key]
            assert want == number or want == float(number) * {"": 1, "MiB": 1 << 20}[unit], key

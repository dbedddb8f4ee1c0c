"""`zim check`: is this topology right, and what does it look like? With --production: what is left to do?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import click

from zim.cli.drawing import MAX_CHARS, draw
from zim.cli.where import topology_argument, topology_file, topology_option
from zim.program import where_docs_are
from zim.topology import Topology, load, out_of_reach
from zim.topology.review import SEVERITIES, Finding, review

SINGLE_COPY = "log.single_copy: SINGLE COPY: what is accepted may be on one machine alone, and lost with it"
_NOTHING = "Nothing to say: a review finds nothing that must change, nor should."


@click.command()
@topology_argument
@topology_option()
@click.option("--production", is_flag=True, help="Say what a security review would, of this file on this machine.")
def check(file: Path | None, topology: Path | None, production: bool) -> None:
    """Check a topology file and draw the fabric it describes.

    Every problem found is one line on stderr that names its key; the exit code is then 1. A file with a key that is not
    there, or is no key, is a note below the drawing: the nodes may run on another machine. So is an address by which
    nodes on other machines do not reach a node.

    With --production it says instead what must change before strangers come (errors), what should (warnings), and what
    is to be known (notes): by the file, by the modes of the files that it names, and by how many files may be open.

    \b
    zim check                               $ZIM_TOPOLOGY, or ./topology.toml
    zim check examples/two-of-each.toml
    zim check --production /etc/zim/topology.toml

    \b
    Exit codes:
      0  it is right; with --production there are no errors
      1  it is not; with --production there is an error
      2  the command line is wrong
    """
    path = topology_file(topology, file)
    fabric = load(path)
    click.echo(f"{'' if production else 'OK: '}{path} describes {len(fabric.nodes)} nodes.\n")
    if not production:
        click.echo(draw(fabric))
        for text in out_of_reach(fabric):
            click.echo("\n".join(_wrapped(f"note     {text}", "")))
        if fabric.identity.knows_tokens or fabric.identity.callout:
            for text in _file_problems(fabric):
                click.echo("\n".join(_wrapped(f"note     {text}; no logic starts here until it is right", "")))
        if fabric.log is not None and fabric.log.single_copy:
            click.echo("\n".join(_wrapped(f"warning  {SINGLE_COPY}", "")))
        return
    from zim.cli.machine import look_at_machine

    found = review(fabric, look_at_machine(fabric))
    click.echo(findings_text(found))
    sys.exit(any(one.severity == "error" for one in found))


def _file_problems(fabric: Topology) -> list[str]:
    from zim.identity.loading import file_problems  # brings cryptography

    return file_problems(fabric.identity)


def findings_text(found: Sequence[Finding]) -> str:
    """What a review has found, for people. Words that are longer than a line stay whole: they may be copied."""
    if not found:
        return _NOTHING
    keys: dict[tuple[str, str, str], list[str]] = {}
    for one in found:
        keys.setdefault((one.severity, one.what, one.right), []).append(one.key)
    lines: list[str] = []
    for (severity, what, right), where in keys.items():
        lines += _wrapped(f"{severity:9}{', '.join(where)}", "")
        lines += [*_wrapped(what, " " * 9), *_wrapped(f"right: {right}", " " * 9)]
    counts = {what: sum(one.severity == what for one in found) for what in SEVERITIES}
    total = ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n)
    always = f"What holds for every topology is in docs/security.md. {where_docs_are()}"
    return "\n".join([*lines, "", f"{total}.", *_wrapped(always, "", "")])


def _wrapped(text: str, indent: str, then: str = " " * 9) -> list[str]:
    return wrap(
        text,
        MAX_CHARS,
        initial_indent=indent,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )

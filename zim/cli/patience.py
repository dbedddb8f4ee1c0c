"""A word to whoever waits for an answer that does not come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
import gevent

PATIENT_S = 2.0


@contextmanager
def patience(what: str) -> Iterator[None]:
    """Says on standard error that it is waited for, once, where the body takes long.

    Args:
        what: is not there yet.
    """
    context = click.get_current_context(silent=True)
    command = " ".join(context.command_path.split()[:2]) if context else "zim"
    word = gevent.spawn_later(PATIENT_S, click.echo, f"{command}: {what}", err=True)
    try:
        yield
    finally:
        word.kill()

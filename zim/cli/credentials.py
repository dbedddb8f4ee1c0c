"""What a command shows of itself: an API key, a token. Not on the command line, which others can see."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from zim.cli.mistakes import FilePath

ENVIRONMENT = "ZIM_API_KEY"
TOKEN_ENVIRONMENT = "ZIM_TOKEN"
HOW_TO_SHOW = f"give it by --key-file FILE, or in {ENVIRONMENT}"
_META = "zim.cli.credentials"
_MOST_BYTES = 4_096  # of the file

_F = TypeVar("_F", bound=Callable[..., Any])


def key_file_option(command: _F) -> _F:
    """The option --key-file, for commands that ask the HTTP API. What is in it `api_key` gives."""
    text = f"A file with the API key. By default it is that of ${ENVIRONMENT}, if there is one."
    return click.option(
        "--key-file",
        metavar="FILE",
        type=FilePath(path_type=Path),
        callback=_read,
        expose_value=False,
        help=text,
    )(command)


def _read(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is None:
        return
    try:
        with value.open("rb") as f:
            key = f.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except OSError as e:
        raise click.BadParameter(f"{value} cannot be read: {e.strerror}") from None
    if not key:
        raise click.BadParameter(f"{value} is empty; right is a file with the key that zim api-key make has printed")
    ctx.meta[_META] = key


def is_key_named() -> bool:
    """--key-file was given."""
    return _META in click.get_current_context().meta


def api_key() -> str:
    """The key that the command shows; "" for none."""
    found: str | None = click.get_current_context().meta.get(_META)
    return found or os.environ.get(ENVIRONMENT, "").strip()

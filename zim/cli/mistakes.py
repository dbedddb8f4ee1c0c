"""What somebody has meant who makes a mistake on the command line. What may be a secret is not said again. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import click
from typing_extensions import override

from zim.program import zim_command

_SECRET = re.compile(r"zim_[A-Za-z0-9_-]{16,}|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")  # API key, JWT
_EXTRA = re.compile(r"Got unexpected extra arguments? \((.*)\)", re.DOTALL)  # click's words
_MEANT = {"--key": "--key-file", "--api-key": "--key-file", "--token": "--token-file"}
_CALLED = {  # what is called otherwise in other programs
    **dict.fromkeys(("--host", "--port", "--url", "--server", "--comet"), ("--address", "--http")),
    **dict.fromkeys(("--user", "--user-id", "--id"), ("--uid",)),
    **dict.fromkeys(("--ttl", "--expires", "--exp", "--valid-for"), ("--for",)),
    **dict.fromkeys(("--file", "--config", "-c", "-f"), ("--topology",)),
    **dict.fromkeys(("-v", "-V"), ("--version",)),
    **dict.fromkeys(("--rooms", "--channel", "--topic"), ("--room",)),
}
_AN_ARGUMENT = ("--body", "--message", "--data", "-d")
_CLOSE = 0.7  # from that on names are alike
_BEGUN = 3  # characters of an option, with its dashes, that may be the beginning of more than one
_RANGES = {  # click's words, and ours
    "is not a valid integer range": "is no whole number",
    "is not a valid float range": "is no number",
}
_ITSELF = "that is an API key or a token itself"
_WAYS = {
    "--token-file": "a token is shown by --token-file FILE, or in ZIM_TOKEN",
    "--key-file": "an API key is shown by --key-file FILE, or in ZIM_API_KEY",
}


class FilePath(click.Path):
    """The name of a file. Who gives a secret itself, and not the file that it is in, does not see it again."""

    @override
    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if _SECRET.fullmatch(os.fspath(value)):
            self.fail(f"{_ITSELF}; right is the name of a file", param, ctx)
        return super().convert(value, param, ctx)


class GuidingGroup(click.Group):
    """A group that says what is meant by a word that is no command of it."""

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_wrong = args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None
        if is_wrong and not ctx.resilient_parsing:  # a shell that completes a line asks with half a word
            close = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"did you mean {close[0]}?" if close else self.right(ctx, args[0])
            raise click.UsageError(f"no such command: {args[0]}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def right(self, ctx: click.Context, said: str) -> str:
        """What would be right, where no command is called like what was said."""
        return f"right is one of {', '.join(self.list_commands(ctx))}"


def improved(error: click.UsageError) -> click.UsageError:
    """The error, with what was meant as far as that can be told, and without secrets."""
    if error.ctx is None:
        return error
    command, said = error.ctx.command, error.format_message()
    options = [name for one in command.params if isinstance(one, click.Option) for name in one.opts]
    unknown = getattr(error, "option_name", "") if isinstance(error, click.NoSuchOption) else ""
    text = said
    if found := _EXTRA.fullmatch(said):
        words = found[1].split(" ")
        unknown = _unknown_option([*map(_text, error.ctx.params.values()), *words], options)
        text = _of_extra(error.ctx, words, unknown, options)
    elif isinstance(error, click.NoSuchOption):
        text = _of_option(error.ctx, unknown, options)
    for theirs, ours in _RANGES.items():
        text = text.replace(theirs, ours)
    text = _SECRET.sub("…", text)
    if unknown in _MEANT:
        text = f"{text} {_WAYS[_MEANT[unknown]]}" if _MEANT[unknown] in options else text
    elif _ITSELF in text or _SECRET.search(said):
        text = "; ".join([text, *(way for way in _ways(options) if way not in text)])
    return error if text == said else click.UsageError(text, error.ctx)


def _of_extra(ctx: click.Context, words: Sequence[str], unknown: str, options: Sequence[str]) -> str:
    """What is said of words that have no place in a command."""
    if unknown:
        return _of_option(ctx, unknown, options)
    group = ctx.parent.command if ctx.parent else None
    one = (ctx.command.name or "").removesuffix("s")
    if isinstance(group, click.Group) and one != ctx.command.name and one in group.commands:
        return f"did you mean: {ctx.command_path.removesuffix('s')} {' '.join(words)}?"
    if "--uid" in options and words[0].isdecimal():
        return f"{words[0]} has no place here; did you mean --uid {words[0]}?"
    ways = _ways(options)
    if ways and not any(isinstance(one, click.Argument) for one in ctx.command.params):
        return "; ".join([f"{ctx.command_path} takes options alone", *ways])  # words may be a secret
    return f"too many words: {' '.join(words)}"


def _of_option(ctx: click.Context, unknown: str, options: Sequence[str]) -> str:
    """What is said of an option that there is not."""
    if unknown in _AN_ARGUMENT and ctx.command_path.split()[1:2] == ["push"]:
        return f"no such option: {unknown}; the body is the last word, such as: {zim_command()} push user 7 hello"
    meant = [name for name in (_MEANT.get(unknown, ""), *_CALLED.get(unknown, ())) if name in options]
    if not meant and unknown == "--topology" and isinstance(ctx.command, click.Group):
        return (
            f"no such option: {unknown}; it stands behind the command, such as: {zim_command()} status {unknown} FILE"
        )
    if unknown == "--topology" and any("FILE" in (one.metavar or "") for one in ctx.command.params):
        return f"no such option: {unknown}; the file is the last word, such as: {ctx.command_path} FILE"
    if (below := _below(ctx.command, unknown)) and not meant:
        return (
            f"no such option: {unknown}; it stands behind {below}: {zim_command()} {ctx.info_name} {below} … {unknown}"
        )
    begun = [name for name in options if name.startswith(unknown) and len(unknown) > _BEGUN]
    close = meant or begun or get_close_matches(unknown, options, n=1, cutoff=_CLOSE)
    return f"no such option: {unknown}" + (f"; did you mean {close[0]}?" if close else "")


def _below(command: click.Command, unknown: str) -> str:
    """The first command of a group that has this option; "" without."""
    commands = command.commands if isinstance(command, click.Group) else {}
    return next((name for name, one in commands.items() if any(unknown in p.opts for p in one.params)), "")


def _ways(options: Sequence[str]) -> list[str]:
    return [way for option, way in _WAYS.items() if option in options]


def _unknown_option(words: Sequence[str], options: Sequence[str]) -> str:
    """The first of the words that looks like an option and is none; "" without."""
    names = (word.partition("=")[0] for word in words if re.match(r"--[a-z]", word))
    return next((name for name in names if name not in options), "")


def _text(value: Any) -> str:
    """An argument's value, if it may have been meant as an option."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""

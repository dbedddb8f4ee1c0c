"""`zim completion bash`: what makes a shell complete zim's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "zim"
VARIABLE = "_ZIM_COMPLETE"  # by which click's script asks the program; click derives the same from its name


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete zim's lines.

    It is a script of SHELL, for commands, options and files, and needs `zim` in PATH. To switch it on for all shells
    that are started later:

    \b
    bash   echo 'eval "$(zim completion bash)"' >>~/.bashrc
    zsh    echo 'eval "$(zim completion zsh)"' >>~/.zshrc        (behind compinit)
    fish   zim completion fish >~/.config/fish/completions/zim.fish
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"the click that is installed knows no {shell}")
    click.echo(script(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())

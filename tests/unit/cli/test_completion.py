"""`zim completion`: the shells ask the program, and it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which `zim` is in PATH."""
    program = tmp_path / "zim"
    program.write_text(f"#!{sys.executable}\nfrom zim.__main__ import main\nmain()\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[3])}


def output(environment: dict[str, str], *command: str, **more: str) -> str:
    done = subprocess.run(command, env=environment | more, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("words", "found"), [("pu", ["push"]), ("push r", ["room"]), ("check --to", ["--topology"])])
def test_bash_completes(words: str, found: list[str], environment: dict[str, str]) -> None:
    count = len(words.split())
    script = f"""
        eval "$(zim completion bash)"
        complete -p zim >&2 || exit
        COMP_WORDS=(zim {words}) COMP_CWORD={count}
        _zim_completion zim
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert output(environment, "bash", "-c", script).split() == found


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shells_script_asks_what_zim_answers(shell: str, environment: dict[str, str]) -> None:
    script = output(environment, "zim", "completion", shell)
    assert f"_ZIM_COMPLETE={shell}_complete" in script
    current = "pu" if shell == "fish" else "1"  # fish hands over the word, the others its number
    words = {"COMP_WORDS": "zim pu", "COMP_CWORD": current, "_ZIM_COMPLETE": f"{shell}_complete"}
    assert "push" in output(environment, "zim", **words)


def test_another_shell_is_refused(environment: dict[str, str]) -> None:
    done = subprocess.run(["zim", "completion", "csh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in done.stderr

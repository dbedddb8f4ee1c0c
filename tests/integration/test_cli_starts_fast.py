"""`zim check` loads neither Flask nor zmq: a process of its own shows it."""

import subprocess
import sys
from pathlib import Path

DEFAULT = Path(__file__).parents[2] / "topology.toml"


def test_check_starts_fast() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from zim.cli import main;"
        f" CliRunner().invoke(main, ['check', {str(DEFAULT)!r}], catch_exceptions=False);"
        " print([m for m in ('flask', 'zmq', 'rich') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"

"""A supervisor over stand-in nodes, in a process of its own so that tests can signal and kill it.

`python -m tests.integration.stand_in_fabric TOPOLOGY FOLDER [CONSTANT=SECONDS ...]` sets constants of
zim.supervisor.restarts and zim.supervisor.running. It prints `complete NAME:PID …` when all are ready.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from zim import logs  # noqa: E402
from zim.supervisor import restarts, running  # noqa: E402
from zim.supervisor.keeping import RunningNode  # noqa: E402
from zim.supervisor.running import Supervisor  # noqa: E402
from zim.topology import Node, load  # noqa: E402

STAND_IN_NODE = Path(__file__).with_name("stand_in_node.py")


def main(topology: Path, folder: Path, *constants: str) -> int:
    for constant in constants:
        name, _, seconds = constant.partition("=")
        setattr(restarts if hasattr(restarts, name) else running, name, float(seconds))

    def command(node: Node, lifeline: int) -> list[str]:
        if (folder / f"{node.name}.do").exists() and (folder / f"{node.name}.do").read_text() == "absent":
            return [str(folder / "no-such-program")]
        return [sys.executable, "-S", str(STAND_IN_NODE), node.name, str(lifeline), str(folder)]

    def on_complete(nodes: list[RunningNode]) -> None:
        print("complete", *(f"{one.node.name}:{one.pid}" for one in nodes), flush=True)  # noqa: T201

    logs.setup("zim-up")
    supervisor = Supervisor(load(topology).nodes, command, on_complete, logs.writer(logs.STDERR).put)
    supervisor.on_hangup = lambda: logging.getLogger(__name__).info("SIGHUP")
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))

"""A node for the supervisor's tests: it says what it is told to, and writes down what becomes of it.

`python stand_in_node.py NAME LIFELINE FOLDER`. FOLDER/NAME.do says how it behaves: `run` (also without the file),
`crash`, `fatal`, `full`, `stubborn` (SIGTERM does not end it), `mute` (never ready). In FOLDER it appends `NAME PID` to
`started`, `NAME` to `asked` when it gets SIGTERM, and `NAME` to `cut` when its lifeline ends.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main(name: str, lifeline: int, folder: Path) -> None:
    def note(file: str, text: str) -> None:
        with (folder / file).open("a") as out:
            out.write(text + "\n")

    def on_term(*_: object) -> None:
        note("asked", name)
        if behaviour != "stubborn":
            sys.exit(0)

    def say(line: str) -> None:
        os.write(2, line.encode() + b"\n")

    do = folder / f"{name}.do"
    behaviour = do.read_text() if do.exists() else "run"
    signal.signal(signal.SIGTERM, on_term)
    note("started", f"{name} {os.getpid()}")
    if behaviour == "crash":
        for i in range(30):
            say(f"{name} line {i}")
        sys.exit(1)
    if behaviour == "fatal":
        say(f"{name}: 127.0.0.1:1 is in use")
        sys.exit(2)
    if behaviour == "full":
        say(f"{name}: there is no room")
        sys.exit(3)
    if behaviour != "mute":
        os.write(1, f'ready {name} {{"tcp": ["127.0.0.1:1"]}}\n'.encode())
    os.read(lifeline, 1)  # nobody writes: it returns when the other end is closed
    note("cut", name)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

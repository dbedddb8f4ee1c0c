"""The program. Monkey-patches before anything else is imported; nothing else in zim patches."""

import os
import sys

# Started with `>&-`, say. What is opened next would get the number, and be written to as if it was the output.
for _name in ("stdin", "stdout", "stderr"):
    if getattr(sys, _name) is None:
        setattr(sys, _name, open(os.devnull, "r+"))  # noqa: SIM115 it stays open

from gevent import config, monkey

config.track_greenlet_tree = False  # it keeps the spawning stack with every greenlet
monkey.patch_all()

from zim.cli import main

if __name__ == "__main__":
    main()

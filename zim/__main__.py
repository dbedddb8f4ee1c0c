"""The program. Monkey-patches before anything else is imported; nothing else in zim patches."""

import os
import signal
import sys

# All that is imported takes a while; who presses Ctrl-C meanwhile is not to see where it was.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Started with `>&-`, say. What is opened next would get the number, and be written to as if it was the output.
for _name in ("stdin", "stdout", "stderr"):
    if getattr(sys, _name) is None:
        setattr(sys, _name, open(os.devnull, "r+"))  # noqa: SIM115 it stays open

from gevent import config, monkey

config.track_greenlet_tree = False  # it keeps the spawning stack with every greenlet
monkey.patch_all()

from zim.cli import main
from zim.interrupts import wake_at_signals

if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wake_at_signals()

if __name__ == "__main__":
    main()

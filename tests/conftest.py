"""Patches first, as zim.__main__ does for the program."""

import os
import signal

import gevent
from gevent import monkey

monkey.patch_all()

from hypothesis import HealthCheck, settings

# The first text that hypothesis makes on a machine takes seconds, and no test asserts a time.
settings.register_profile("zim", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zim")

# Who starts the tests in the background of a script has Ctrl-C ignored, and so would every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Fabrics of tests have files of their own.
os.environ.pop("ZIM_TOPOLOGY", None)

# pytest-xdist's workers wait for their master in a thread that the hub does not see: without anything to wait for,
# gevent would say that the main greenlet would block for ever.
_awake = gevent.get_hub().loop.timer(0.2, 0.2)
_awake.start(lambda: None)

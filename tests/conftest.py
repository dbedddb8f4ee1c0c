"""Patches first, as zim.__main__ does for the program."""

import gevent
from gevent import monkey

monkey.patch_all()

# pytest-xdist's workers wait for their master in a thread that the hub does not see: without anything to wait for,
# gevent would say that the main greenlet would block for ever.
_awake = gevent.get_hub().loop.timer(0.2, 0.2)
_awake.start(lambda: None)

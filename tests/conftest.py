"""Patches first, as zim.__main__ does for the program. What is not a unit test is not measured for coverage."""

import signal
from pathlib import Path

import gevent
from gevent import monkey

monkey.patch_all()

import pytest
from hypothesis import HealthCheck, settings

_UNIT = Path(__file__).with_name("unit")

# The first text that hypothesis makes on a machine takes seconds, and no test asserts a time.
settings.register_profile("zim", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zim")

# Who starts the tests in the background of a script has Ctrl-C ignored, and so would every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest-xdist's workers wait for their master in a thread that the hub does not see: without anything to wait for,
# gevent would say that the main greenlet would block for ever.
_awake = gevent.get_hub().loop.timer(0.2, 0.2)
_awake.start(lambda: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coverage makes the simulator four times slower, and does not see the nodes of a real fabric."""
    for item in items:
        if not item.path.is_relative_to(_UNIT):
            item.add_marker("no_cover")

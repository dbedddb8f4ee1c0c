"""Runs the processes of a topology: starts them, watches, restarts, and stops them in the order of the data."""

from zim.supervisor.admin import open_admins
from zim.supervisor.ports import ports_in_use
from zim.supervisor.running import RunningNode, Supervisor, node_command, raise_open_files

__all__ = ["RunningNode", "Supervisor", "node_command", "open_admins", "ports_in_use", "raise_open_files"]

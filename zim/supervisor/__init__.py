"""Runs the processes of a topology: starts them, watches, restarts, and stops them in the order of the data."""

from zim.supervisor.admin import Admins
from zim.supervisor.control import ControlSocket, control_path
from zim.supervisor.keeping import RunningNode
from zim.supervisor.open_files import raise_open_files
from zim.supervisor.ports import ports_in_use
from zim.supervisor.reloading import Reloader
from zim.supervisor.running import Supervisor, node_command
from zim.supervisor.systemd import Manager

__all__ = [
    "Admins",
    "ControlSocket",
    "Manager",
    "Reloader",
    "RunningNode",
    "Supervisor",
    "control_path",
    "node_command",
    "ports_in_use",
    "raise_open_files",
]

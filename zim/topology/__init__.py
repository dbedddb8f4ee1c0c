"""topology.toml → a frozen, checked Topology: one file describes the fabric, every process reads it."""

from zim.topology.changes import TopologyChange, believed_from_now_on, compare
from zim.topology.file import load, parse
from zim.topology.handing import pack, unpack
from zim.topology.links import Links
from zim.topology.log import LogPlace
from zim.topology.nodes import Comet, Job, ListenAddress, Listeners, Logic, Node, Router, Topology
from zim.topology.reach import out_of_reach

__all__ = [
    "Comet",
    "Job",
    "Links",
    "ListenAddress",
    "Listeners",
    "LogPlace",
    "Logic",
    "Node",
    "Router",
    "Topology",
    "TopologyChange",
    "believed_from_now_on",
    "compare",
    "load",
    "out_of_reach",
    "pack",
    "parse",
    "unpack",
]

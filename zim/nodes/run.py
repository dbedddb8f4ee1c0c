"""From a node's name to its process: `zim node comet-1`."""

from __future__ import annotations

from zim import logs
from zim.errors import NodeError, NotNow, Unavailable, ZimError
from zim.nodes.base import EXIT_CRASH, EXIT_FATAL, EXIT_NOT_NOW, NodeProcess
from zim.topology import Comet, Job, Logic, Node, Router, Topology


def run(topology: Topology, name: str, lifeline_fd: int | None = None, orders_fd: int | None = None) -> int:
    """Runs one node until it is told to stop.

    Returns:
        0 after a stop, 1 after a failure, 2 after one that a restart would not cure, 3 after one that passes by itself.

    Raises:
        KeyError: the topology has no node of that name.
    """
    try:
        return _make(topology, topology.node(name)).run(lifeline_fd, orders_fd)
    except (NotNow, Unavailable) as e:  # the disk has no room
        _say(f"{name}: {e}")
        return EXIT_NOT_NOW
    except NodeError as e:
        _say(f"{name}: {e}")
        return EXIT_FATAL
    except ZimError as e:
        _say(f"{name}: {e}")
        return EXIT_CRASH


def _say(text: str) -> None:
    """The last words of a node, as they are: the supervisor shows them."""
    stderr = logs.writer(logs.STDERR)
    stderr.put(text.encode("utf-8", "backslashreplace") + b"\n")
    stderr.flush(logs.FLUSH_S)


def _make(topology: Topology, node: Node) -> NodeProcess:
    # Imported here: a comet does not need Flask, nor a job gevent-websocket.
    if isinstance(node, Comet):
        from zim.nodes.comet.node import CometNode

        return CometNode(topology, node)
    if isinstance(node, Logic):
        from zim.nodes.logic.node import LogicNode

        return LogicNode(topology, node)
    if isinstance(node, Router):
        from zim.nodes.router.node import RouterNode

        return RouterNode(topology, node)
    assert isinstance(node, Job)
    from zim.nodes.job.node import JobNode

    return JobNode(topology, node)

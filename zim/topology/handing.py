"""A topology on its way from `zim up` to its nodes: they start with what is in force, whatever the file says by now.

The file may have been edited since, and not be right, or wait for a restart of all nodes at once.
"""

from __future__ import annotations

import pickle

from zim.errors import TopologyError
from zim.topology.nodes import Topology


def pack(topology: Topology) -> bytes:
    """For `unpack`, by a process of the same version."""
    return pickle.dumps(topology)


def unpack(data: bytes) -> Topology:
    """Raises:
    TopologyError: it is not what `pack` has made.
    """
    try:
        found = pickle.loads(data)
    except Exception as e:  # noqa: BLE001 any, of bytes that are none
        raise TopologyError([f"what zim up says of the topology is not understood: {e!r}"]) from None
    if not isinstance(found, Topology):
        raise TopologyError(["what zim up says of the topology is none"])
    return found

"""A history → what is wrong with it. Pure, in the style of Jepsen's queue tests.

What is owed:

- A client of zim's dialect gets of each stream, from where its first reply says on, every message, once, in order,
  with contiguous offsets, over all its connections: a reply to a resume goes on where the client was, or says
  `recovered: false`; a hole is told by a gap packet. Either is right only where retention, or the end of a router with
  live-only streams, can explain it.
- One that does not resume begins its own stream at the user's cursor: not before what was acknowledged, nor after what
  it asked to acknowledge.
- A goim client is owed, for each of its connections, every push that was asked after its auth reply and accepted while
  it was connected, once, in order. What was on its way when the connection ended is lost to it by design: so only the
  end of a connection that was open to the end counts.
- A push with a ttl is owed to nobody, and reaches nobody after it.
- What was never pushed, answered 503, or asked under the key of another push reaches nobody.
- The log has every accepted push once, with contiguous offsets, and what clients got stands where the log has it. What
  one batch has, or one publisher over ZeroMQ, stands in its order.
"""

from __future__ import annotations

from tests.fault.check_goim import GoimChecker
from tests.fault.check_log import check_logs, check_publishers
from tests.fault.check_zim import ZimChecker
from tests.fault.findings import Finding
from tests.fault.history import History
from tests.fault.world import World


def check(history: History) -> list[Finding]:
    """All that is wrong in a history; empty for one that kept every promise."""
    world = World(history)
    found = [*check_logs(world), *check_publishers(world)]
    for client in history.clients:
        found += (ZimChecker if client.dialect == "zim" else GoimChecker)(world, client).run()
    return found

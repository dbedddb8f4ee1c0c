"""The log that several routers share, on PostgreSQL. Its SQL is nowhere else, nor is psycopg.

engine      the calls of SharedLog
administering  what people do with it: make it, migrate it, look at it
shard_log   the calls of Log for one shard: who has the turn, what the caches may show
process     what the shards of a process share: connections, appends that go together
connecting  which host, by what options; what becomes of a connection that hangs
schema      the tables, and whether those that are there are ours
rows        who owns what: beats, deaths, takeovers
planning    a batch → the rows to write, and the answers; pure
packing     values → parameters, many rows in a few arrays; pure
writing     the one statement of an append, and what became of one that is not known
appending   appends of several shards, in one commit
reading     everything that only reads
trimming    what may go, and letting it go
vacuuming   so that its room is used again
copying     logs of routers that stand still → this log
receipts    what became of pushes
failures    PostgreSQL's errors → ours
"""

from zim.nodes.router.log.postgresql.administering import make
from zim.nodes.router.log.postgresql.engine import PostgresLog

__all__ = ["PostgresLog", "make"]

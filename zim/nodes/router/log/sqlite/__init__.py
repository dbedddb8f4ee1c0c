"""The durable log, and the receipts beside it, on SQLite. No SQL is anywhere else.

engine    the calls of Log, on the hub: who has the turn, what the caches may show
planning  a batch → the rows to write and the answers; pure
tables    every statement; few and large ones, because sqlite3 gives up the GIL at each step and has to get it back
          from a busy hub
trimming  what may go, and letting it go
opening   making and checking the database
wal       what SQLite does not say about a damaged WAL
worker    one connection, one job at a time, in a thread
receipts  what became of pushes, in a file of their own
failures  SQLite's errors → ours
backup    a copy of a log whose router may run
exporting a log that stands still, to be copied into another engine
ballast   room for the day when the disk is full
"""

from zim.nodes.router.log.sqlite.backup import BackedUp, back_up
from zim.nodes.router.log.sqlite.engine import SqliteLog
from zim.nodes.router.log.sqlite.exporting import SqliteSource
from zim.nodes.router.log.sqlite.opening import begin_epoch
from zim.nodes.router.log.sqlite.receipts import SqliteReceipts
from zim.nodes.router.log.sqlite.worker import InThread

__all__ = ["BackedUp", "InThread", "SqliteLog", "SqliteReceipts", "SqliteSource", "back_up", "begin_epoch"]

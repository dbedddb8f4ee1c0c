"""PostgreSQL's errors → what they mean for a log. Pure."""

from __future__ import annotations

import psycopg

from zim.errors import ZimError
from zim.nodes.router.log import Damaged, unavailable, unknown

# https://www.postgresql.org/docs/current/errcodes-appendix.html
# An error that a server reports ends the transaction without a commit; but where it ends the connection as well, the
# commit may have been before it, and its answer lost.
_ENDING = ("08", "57P")
_DAMAGE = ("XX001", "XX002", "23505", "22021", "22P05")  # of what is stored; an offset, or a number, that is not free
_FULL = "53100"


class CommitUnsureError(psycopg.Error):
    """The engine has committed, and did not wait for the standby: a failover may forget it."""


class StaleServerError(psycopg.Error):
    """This server does not have what was committed last: it was deposed, or has lost it."""


def is_full(error: psycopg.Error) -> bool:
    """Whether the engine's disk has no room."""
    return error.sqlstate == _FULL


def of_write(error: psycopg.Error) -> ZimError:
    """What it means where something was to be committed."""
    state = error.sqlstate
    if state in _DAMAGE:
        return Damaged("PostgreSQL", text_of(error))
    if state is None or state.startswith(_ENDING):
        return unknown(text_of(error))
    return unavailable(text_of(error))


def of_read(error: psycopg.Error) -> ZimError:
    """What it means out of a SELECT, or before anything was asked."""
    return Damaged("PostgreSQL", text_of(error)) if error.sqlstate in _DAMAGE else unavailable(text_of(error))


def ends_connection(error: psycopg.Error) -> bool:
    """Whether the connection is of no use any more; a server that takes no writes is not the one that is looked for."""
    state = error.sqlstate
    return state is None or state.startswith(_ENDING) or state == "25006"


def text_of(error: psycopg.Error) -> str:
    """For people: one line, with the code."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text} ({error.sqlstate})" if error.sqlstate else text

"""A log that all routers share, on PostgreSQL: routers die, stand still, end; the engine fails over. Under load."""

from __future__ import annotations

import http.client
import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.fault.load import Publisher, check, subscribe
from tests.harness import Fabric, running, wait_until
from tests.postgresql import Postgres, cluster, place
from zim.nodes.router.log.administering import engine

SHARDS = 8
DATABASES = itertools.count(1)


@contextmanager
def sharing(primary: Postgres, *standbys: Postgres, routers: int = 3, comets: int = 2, **more: Any) -> Iterator[Fabric]:
    """A fabric whose routers share a log."""
    database = f"zim_{next(DATABASES)}"
    primary.execute(f"CREATE DATABASE {database}")
    where = place(primary, *standbys, database=database, shards=SHARDS, single_copy=True)
    log = f'[log]\nurl = "{where.url}"\nshards = {SHARDS}\nsingle_copy = true\n'
    engine().make(where, "test")
    with running(routers=routers, logics=2, jobs=2, comets=comets, more=log, has_admin=True, **more) as fabric:
        wait_until(lambda: sum(shards(fabric).values()) == SHARDS, "every shard has an owner")
        yield fabric


def shards(fabric: Fabric, *names: str) -> dict[str, int]:
    """How many shards routers say that they own, all of them or these; those that are not there own none."""
    found = {}
    for name in names or [name for name in fabric.binds if name.startswith("router")]:
        try:
            text = fabric.metrics(name)
        except (OSError, http.client.HTTPException):
            continue
        line = next(line for line in text.splitlines() if line.startswith("zim_router_shards "))
        found[name] = int(float(line.split()[1]))
    return found


def test_routers_die_and_stand_still_and_others_take_their_shards() -> None:
    with cluster() as (primary, _), sharing(primary) as fabric:
        subscribers = subscribe(fabric, 40)
        publisher = Publisher(fabric, rate=100)
        publisher.push_more(20)
        for name, how in (("router-1", signal.SIGKILL), ("router-2", signal.SIGSTOP), ("router-3", signal.SIGSTOP)):
            pid = fabric.kill(name, how)
            publisher.push_more(20)
            if how == signal.SIGSTOP:
                others = [other for other in ("router-1", "router-2", "router-3") if other != name]
                wait_until(
                    lambda o=others: sum(shards(fabric, *o).values()) == SHARDS,  # type: ignore[misc]
                    "the others own all",
                )
                fabric.kill(name, signal.SIGCONT)
            else:
                wait_until(lambda n=name, p=pid: fabric.pid(n) not in (0, p), f"{name} runs again")  # type: ignore[misc]
            publisher.push_more(20)
        wait_until(lambda: sum(shards(fabric).values()) == SHARDS, "every shard has one owner")
        check(subscribers, publisher.stop())
        assert set(publisher.answers) == {200}


def test_the_engine_fails_over() -> None:
    with cluster(standby=True) as (primary, second):
        assert second is not None
        with sharing(primary, second) as fabric:
            subscribers = subscribe(fabric, 40)
            publisher = Publisher(fabric, rate=100)
            publisher.push_more(50)
            primary.kill()
            second.promote()
            publisher.push_more(50)
            wait_until(lambda: sum(shards(fabric).values()) == SHARDS, "every shard has one owner")
            check(subscribers, publisher.stop())

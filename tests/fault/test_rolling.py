"""A fabric whose routers share a log is restarted as a whole, under load: no consent is needed, and nobody notices."""

from __future__ import annotations

from tests.fault.test_takeover import SHARDS, shards, sharing
from tests.harness import wait_until
from tests.integration.test_drain import Pushes, check_all_got, people, statuses, zim
from tests.postgresql import cluster

PEOPLE = 40


def test_all_nodes_are_restarted_and_no_push_is_refused_or_lost() -> None:
    with cluster() as (primary, _), sharing(primary, routers=2) as fabric:
        tcp = list(fabric.tcp.values())
        before = statuses(fabric)
        with people(fabric, PEOPLE, lambda n: tcp[n % 2 :] + tcp[: n % 2]) as found:
            pushes = Pushes(fabric)
            wait_until(lambda: pushes.made > 20, "pushes come")
            code, said = zim(fabric, "restart", "--rolling")
            assert code == 0, said
            more = pushes.made + 20
            wait_until(lambda: pushes.made > more, "pushes come")
            check_all_got(found, pushes.stop())
            assert (pushes.refused, pushes.broken) == ([], [])
            reconnects = sum(len(one.places) - 1 for one in found)
            assert reconnects <= 1.1 * (1 + 1 / 2) * len(found), [one.places for one in found]
        after = statuses(fabric)
        assert all(one["state"] == "ready" and one["pid"] != before[name]["pid"] for name, one in after.items())
        wait_until(lambda: sum(shards(fabric).values()) == SHARDS, "every shard has one owner")

"""What a router finds in its folder: the log, the right to write it, the receipts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.nodes.router.log.contract import new, stored
from tests.unit.nodes.router.log.receipts_contract import receipt, write
from tests.unit.nodes.router.log.sqlite_support import ROUTERS, direct
from zim.errors import NodeError
from zim.nodes.router.log.durable import Durable, begin_epoch, open_durable


def opened(folder: Path, routers: tuple[str, ...] = ROUTERS) -> Durable:
    return open_durable(folder, "router-1", routers, direct, key_window_s=60.0, ballast_bytes=4096, receipts_s=80.0)


def close(durable: Durable) -> None:
    durable.receipts.close()
    durable.log.close()


def test_the_next_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert first.log.append(first.lease, [new()]) == stored(1)
    write(first.receipts, receipt(delivered=1))
    close(first)
    second = opened(tmp_path)
    assert second.lease.term > first.lease.term
    assert second.log.append(second.lease, [new()]) == stored(2)
    assert not second.log.is_full
    assert second.receipts.before.left == 2
    (found,) = second.receipts.find("aa")
    assert found.tally.unknown == 2  # the receipt is of another term
    close(second)


def test_a_backup_that_was_restored_has_another_epoch(tmp_path: Path) -> None:
    first = opened(tmp_path)
    epoch = first.log.heads(["u:1"])["u:1"].epoch
    close(first)
    fresh = begin_epoch(tmp_path, ROUTERS)
    second = opened(tmp_path)
    assert epoch != fresh == second.log.heads(["u:1"])["u:1"].epoch
    close(second)


def test_other_routers_are_refused(tmp_path: Path) -> None:
    close(opened(tmp_path))
    with pytest.raises(NodeError, match="belongs to the routers"):
        opened(tmp_path, ("router-1",))

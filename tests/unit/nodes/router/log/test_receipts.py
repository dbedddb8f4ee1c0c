"""Both stores of receipts keep what every one must."""

from __future__ import annotations

from pathlib import Path

import pytest
from typing_extensions import override

from tests.unit.nodes.router.log.receipts_contract import ReceiptsContract
from tests.unit.nodes.router.log.sqlite_support import direct
from zim.nodes.router.log.memory_receipts import MemoryReceipts, ReceiptBook
from zim.nodes.router.log.receipts import ReceiptStore
from zim.nodes.router.log.sqlite import SqliteReceipts


class TestMemory(ReceiptsContract):
    @pytest.fixture(autouse=True)
    def content(self) -> None:
        self._book = ReceiptBook()

    @override
    def open(self, run: int) -> ReceiptStore:
        return MemoryReceipts(self._book, run)


class TestSqlite(ReceiptsContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self._folder = tmp_path

    @override
    def open(self, run: int) -> ReceiptStore:
        return SqliteReceipts(self._folder, run, 80.0, direct)

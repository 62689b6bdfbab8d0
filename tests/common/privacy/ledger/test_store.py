"""The ledger's file: opened with suspicion, committed durably, copied whole."""

import sqlite3
from pathlib import Path

import pytest
from ledger_rows import PLAN, open_ledger, stored_rows, three_charges

from feddp.common.disk import Disk
from feddp.common.errors import DiskError, LedgerDamagedError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.store import TABLE, copy_file


def test_durability_settings_are_in_force(tmp_path: Path) -> None:
    with open_ledger(three_charges(tmp_path)) as ledger:
        found = {
            name: ledger._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "trusted_schema", "cell_size_check")
        }
    assert found == {
        "journal_mode": "delete",
        "synchronous": 3,
        "trusted_schema": 0,
        "cell_size_check": 1,
    }


def test_a_setting_that_sqlite_ignores_is_refused(tmp_path: Path) -> None:
    class InMemory(Disk):
        def connect(self, path: Path, *, is_new: bool = False) -> sqlite3.Connection:
            return sqlite3.connect(":memory:", isolation_level=None)

    with pytest.raises(LedgerDamagedError, match="journal_mode"):
        open_ledger(three_charges(tmp_path), InMemory())


def test_rows_cannot_be_changed_through_sql(tmp_path: Path) -> None:
    connection = sqlite3.connect(three_charges(tmp_path))
    for statement in ("UPDATE event SET kind = 'BURN'", "DELETE FROM event"):
        with pytest.raises(sqlite3.IntegrityError, match="append only"):
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("content", [b"", b"not a database" * 100, TABLE.encode()])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(LedgerDamagedError):
        open_ledger(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("found", ["nfs4", "cifs", "smb3", "fuse.sshfs", "fuseblk"])
def test_a_file_system_of_another_machine_is_refused(tmp_path: Path, found: str) -> None:
    class Remote(Disk):
        def filesystem(self, path: Path) -> str:
            return found

    path = three_charges(tmp_path)
    with pytest.raises(DiskError, match=found):
        open_ledger(path, Remote())
    with pytest.raises(DiskError, match=found):
        Ledger.create(tmp_path / "new.sqlite", PLAN, disk=Remote())
    assert not (tmp_path / "new.sqlite").exists()


def test_a_backup_is_the_ledger_and_is_never_overwritten(tmp_path: Path) -> None:
    path, target = three_charges(tmp_path), tmp_path / "backup.sqlite"
    assert copy_file(path, target, Disk()).rows == stored_rows(path) == stored_rows(target)
    with pytest.raises(DiskError, match="never overwritten"):
        copy_file(path, target, Disk())

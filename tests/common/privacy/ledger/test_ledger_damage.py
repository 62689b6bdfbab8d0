"""A ledger whose file was touched is refused, or shows the rows that were written."""

import sqlite3
from pathlib import Path

import pytest
from ledger_rows import (
    PLAN,
    adaptive_plan,
    answer,
    chained,
    charged_body,
    key_of,
    new_ledger,
    open_body,
    open_ledger,
    rewrite,
    stored_rows,
    tamper,
    three_charges,
)

from feddp.common.errors import (
    FeddpError,
    LedgerDamagedError,
)
from feddp.common.privacy.ledger.history import Body
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.store import Row


def assert_refused_or_same(path: Path, expected: list[Row]) -> bool:
    """Whether opening refused the file; if it did not, all rows must be the old ones."""
    try:
        with open_ledger(path) as ledger:
            assert ledger.head == expected[-1][4].hex()
            assert stored_rows(path) == expected
    except FeddpError:
        return True
    return False


def test_flipped_bits_are_refused_or_harmless_and_never_give_other_rows(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    expected, content = stored_rows(path), path.read_bytes()
    page_size = int.from_bytes(content[16:18], "big")
    headers = [100, *range(page_size, len(content), page_size)]
    positions = {*range(100), *(start + offset for start in headers for offset in range(8))}
    positions |= set(range(0, len(content), len(content) // 150))
    used = [index for index, byte in enumerate(content) if byte and index >= page_size]
    positions |= set(used[:: len(used) // 150])
    num_refused = 0
    for index in sorted(positions):
        changed = bytearray(content)
        changed[index] ^= 1 << (index * 5 % 8)
        path.write_bytes(changed)
        num_refused += assert_refused_or_same(path, expected)
        for leftover in tmp_path.glob("ledger.sqlite-*"):
            leftover.unlink()
    assert num_refused > len(positions) // 4


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    content = path.read_bytes()
    for size in {0, 1, 99, 100, *range(0, len(content), 512), len(content) - 1}:
        path.write_bytes(content[:size])
        with pytest.raises(LedgerDamagedError):
            open_ledger(path)


TAMPERED = {
    "deleted charge": ["DELETE FROM event WHERE seq = 5"],
    "deleted charge, renumbered": [
        "DELETE FROM event WHERE seq IN (5, 6)",
        "UPDATE event SET seq = 5 WHERE seq = 7",
    ],
    "deleted plan": ["DELETE FROM event WHERE seq = 1"],
    "all deleted": ["DELETE FROM event"],
    "swapped rows": [
        "UPDATE event SET seq = 99 WHERE seq = 5",
        "UPDATE event SET seq = 5 WHERE seq = 6",
        "UPDATE event SET seq = 6 WHERE seq = 99",
    ],
    "inserted copy": [
        "INSERT INTO event SELECT 8, kind, body, prev, x'00', sig FROM event WHERE seq = 7"
    ],
    "changed body": ["UPDATE event SET body = replace(body, '1.5', '9.5') WHERE seq = 5"],
    "more charges": [
        "UPDATE event SET body = replace(body, 'count\":5', 'count\":9') WHERE seq = 1"
    ],
    "changed kind": ["UPDATE event SET kind = 'BURN' WHERE seq = 4"],
    "changed hash": ["UPDATE event SET hash = zeroblob(32) WHERE seq = 7"],
    "changed link": ["UPDATE event SET prev = zeroblob(32) WHERE seq = 7"],
    "spaces in a body": ["UPDATE event SET body = replace(body, ',', ', ') WHERE seq = 7"],
    "body that is no JSON": ["UPDATE event SET body = 'x' WHERE seq = 7"],
    "body that is a list": ["UPDATE event SET body = '[]' WHERE seq = 7"],
    "body too deep": [f"UPDATE event SET body = '{'[' * 99999}' WHERE seq = 7"],
    "body that is no text": ["UPDATE event SET body = CAST(x'ff' AS TEXT) WHERE seq = 7"],
    "another table": ["CREATE TABLE more(x)"],
    "another trigger": [
        "CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM event WHERE kind = 'CHARGE'; END"
    ],
    "a view": ["CREATE VIEW v AS SELECT * FROM event"],
    "another column": ["ALTER TABLE event ADD COLUMN note TEXT"],
    "another application": ["PRAGMA application_id = 7"],
    "another version": ["PRAGMA user_version = 2"],
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_rows_are_refused(tmp_path: Path, name: str) -> None:
    path = three_charges(tmp_path)
    tamper(path)
    open_ledger(path).__exit__(None, None, None)  # taking the triggers off and on is not enough
    tamper(path, *TAMPERED[name])
    for use in (open_ledger, Ledger.read):
        with pytest.raises(LedgerDamagedError):
            use(path)


def test_a_ledger_without_its_triggers_is_refused(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER no_delete")
    connection.close()
    with pytest.raises(LedgerDamagedError):
        open_ledger(path)


def test_a_history_that_breaks_the_order_is_refused_even_with_right_hashes(tmp_path: Path) -> None:
    two_answers: list[tuple[str, Body]] = [
        ("PLAN", PLAN),
        ("OPEN", open_body(1)),
        ("CHARGE", charged_body(1, 1)),
        ("RELEASE", answer("RELEASE", 1, 1)),
        ("RELEASE", answer("RELEASE", 1, 1)),
    ]
    path = new_ledger(tmp_path)
    rows = chained(two_answers, key_of(path))
    connection = sqlite3.connect(path)
    connection.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", rows[1:4])
    connection.commit()
    open_ledger(path).__exit__(None, None, None)  # so far it is one
    connection.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", rows[4])
    connection.commit()
    connection.close()
    with pytest.raises(LedgerDamagedError, match="RELEASE cannot stand here"):
        open_ledger(path)


def test_a_start_that_is_refused_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"x")
    for _ in range(2):
        with pytest.raises(LedgerDamagedError):
            open_ledger(path)


def test_rows_of_a_foreign_population_are_refused(tmp_path: Path) -> None:
    path, other = three_charges(tmp_path), tmp_path / "other"
    other.mkdir()
    foreign = stored_rows(new_ledger(other, adaptive_plan()))
    mine = stored_rows(path)
    rewrite(path, [*foreign, *mine[1:]])
    with pytest.raises(LedgerDamagedError, match="row 2"):
        Ledger.read(path)


def test_rows_spliced_out_of_the_middle_are_refused(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    rows = stored_rows(path)
    for start in range(1, len(rows) - 1):
        shifted = [(row[0] - 1, *row[1:]) for row in rows[start + 1 :]]
        rewrite(path, [*rows[:start], *shifted])
        with pytest.raises(LedgerDamagedError):
            Ledger.read(path)


@pytest.mark.slow
def test_every_byte_flipped_is_refused_or_harmless(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    expected, content = stored_rows(path), path.read_bytes()
    for index in range(len(content)):
        changed = bytearray(content)
        changed[index] ^= 1 << (index * 5 % 8)
        path.write_bytes(changed)
        assert_refused_or_same(path, expected)
        for leftover in tmp_path.glob("ledger.sqlite-*"):
            leftover.unlink()

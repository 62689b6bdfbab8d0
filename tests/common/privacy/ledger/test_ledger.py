"""The ledger: its rows survive, and one process writes them."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ledger_rows import (
    PLAN,
    SHA256,
    answer,
    chained,
    charged_body,
    key_of,
    new_ledger,
    open_body,
    open_ledger,
    start_of,
    stored_rows,
    three_charges,
)

from feddp.common.disk import Disk
from feddp.common.errors import (
    BudgetSpentError,
    DiskError,
    LedgerDamagedError,
    LedgerLockedError,
    PlanDiffersError,
)
from feddp.common.privacy.ledger.history import Charge, Release
from feddp.common.privacy.ledger.ledger import Ledger

# Life of a ledger


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    with open_ledger(path) as ledger:
        assert ledger.open_charge == Charge(3, 1)
        assert ledger.head == stored_rows(path)[-1][4].hex() == Ledger.read(path).head.hex()
    assert stored_rows(path) == chained(
        [
            ("PLAN", PLAN),
            ("OPEN", open_body(1)),
            ("CHARGE", charged_body(1, 1)),
            ("RELEASE", answer("RELEASE", 1, 1)),
            ("CHARGE", charged_body(2, 1)),
            ("BURN", {"round": 2, "attempt": 1, "cause": "disk"}),
            ("CHARGE", charged_body(3, 1)),
        ],
        key_of(path),
    )
    with open_ledger(path) as ledger:
        ledger.open_run(start_of())
        assert ledger.num_charges == 3
        assert ledger.next_round == 4
        assert ledger.last_release == Release(1, 1, SHA256)


def test_a_ledger_is_never_overwritten(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    before = path.read_bytes()
    with pytest.raises(DiskError, match="exists already"):
        Ledger.create(path, PLAN)
    assert path.read_bytes() == before


def test_a_ledger_starts_with_a_whole_plan(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with pytest.raises(LedgerDamagedError):
        Ledger.create(path, {**PLAN, "num_users": "5"})
    assert not path.exists()


@pytest.mark.parametrize("use", [open_ledger, Ledger.read])
def test_a_missing_ledger_counts_as_spent_and_is_never_created(
    tmp_path: Path, use: Callable[[Path], object]
) -> None:
    with pytest.raises(LedgerDamagedError, match="missing"):
        use(tmp_path / "ledger.sqlite")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(sqlite3.OperationalError):
        Disk().connect(tmp_path / "ledger.sqlite").execute("SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_odd_names_are_names(tmp_path: Path) -> None:
    folder = tmp_path / "a b?mode=memory#%20é"
    folder.mkdir()
    path = three_charges(folder)
    assert path.is_file()
    assert len(Ledger.read(path).charges) == 3


def test_another_plan_is_refused(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    before = path.read_bytes()
    for name in ("r", "other"):
        with open_ledger(path) as ledger, pytest.raises(PlanDiffersError, match="cccccccccccc"):
            ledger.open_run(start_of(name, plan_sha256="c" * 64))
    assert path.read_bytes() == before


# Budget and order


def test_the_budget_is_spent_exactly_and_the_refusal_leaves_the_file_alone(tmp_path: Path) -> None:
    path = new_ledger(tmp_path)
    with open_ledger(path) as ledger:
        ledger.open_run(start_of())
        for _ in range(5):
            ledger.burn(ledger.charge(ledger.next_round), "crash")
        before = path.read_bytes()
        with pytest.raises(BudgetSpentError, match="remaining 0"):
            ledger.charge(6)
        assert ledger.num_charges == 5
    assert path.read_bytes() == before
    assert len(Ledger.read(path).charges) == 5


@pytest.mark.parametrize("round", [0, 1, 3])
def test_only_the_next_round_is_charged(tmp_path: Path, round: int) -> None:
    path = new_ledger(tmp_path)
    with open_ledger(path) as ledger:
        ledger.open_run(start_of())
        ledger.release(ledger.charge(1), SHA256)
        before = path.read_bytes()
        with pytest.raises(LedgerDamagedError):
            ledger.charge(round)
        assert path.read_bytes() == before
        assert ledger.charge(2) == Charge(2, 1)


def test_a_run_charges_only_after_its_start_is_recorded(tmp_path: Path) -> None:
    with open_ledger(new_ledger(tmp_path)) as ledger, pytest.raises(LedgerDamagedError):
        ledger.charge(1)


# One writer


def test_a_second_process_is_refused_and_told_who_holds_the_ledger(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from feddp.common.privacy.ledger.ledger import Ledger\n"
        "from feddp.common.errors import LedgerLockedError\n"
        "try: Ledger.open(Path(sys.argv[1]))\n"
        "except LedgerLockedError as error: print(error); sys.exit(error.exit_code)"
    )
    command = [sys.executable, "-c", code, str(path)]
    with open_ledger(path):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 5
        assert f"held by process {os.getpid()}." in result.stdout
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_link_to_a_ledger_is_the_same_ledger(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    (tmp_path / "other").mkdir()
    link = tmp_path / "other" / "name.sqlite"
    link.symlink_to(path)
    with open_ledger(path), pytest.raises(LedgerLockedError):
        open_ledger(link)


def test_a_race_of_processes_has_one_winner(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    for _ in range(50):
        start, done, results = os.pipe(), os.pipe(), os.pipe()
        children = [_race(path, start[0], done[0], results[1], (start[1], done[1])) for _ in "123"]
        os.close(start[1])  # the children, who wait for this end of file, start together
        answers = b"".join(os.read(results[0], 1) for _ in children)
        os.close(done[1])
        for child in children:
            os.waitpid(child, 0)
        for descriptor in (start[0], done[0], *results):
            os.close(descriptor)
        assert sorted(answers) == sorted(b"llw")


def _race(path: Path, start: int, done: int, results: int, others: tuple[int, int]) -> int:
    child = os.fork()
    if child:
        return child
    for descriptor in others:
        os.close(descriptor)
    os.read(start, 1)
    try:
        ledger = open_ledger(path)
        os.write(results, b"w")
        os.read(done, 1)  # holds the lock until all have answered
        del ledger
    except LedgerLockedError:
        os.write(results, b"l")
    finally:
        os._exit(0)


def test_a_writer_whose_lock_was_stolen_cannot_answer_a_burned_charge(tmp_path: Path) -> None:
    path = new_ledger(tmp_path)
    with open_ledger(path) as robbed:
        robbed.open_run(start_of())
        charge = robbed.charge(1)
        path.with_name(path.name + ".lock").unlink()
        with open_ledger(path) as thief:
            thief.burn(charge, "operator")
        with pytest.raises(DiskError):
            robbed.release(charge, SHA256)
    assert Ledger.read(path).releases == []


def test_a_reader_who_meets_a_writer_is_told_to_wait(tmp_path: Path) -> None:
    class Impatient(Disk):
        def connect(self, path: Path, *, is_new: bool = False) -> sqlite3.Connection:
            connection = super().connect(path, is_new=is_new)
            connection.execute("PRAGMA busy_timeout = 0")
            return connection

    path = three_charges(tmp_path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerLockedError, match="try again"):
        open_ledger(path, Impatient())
    writer.close()


# Disks that fail


class FullDisk(Disk):
    """A disk on which the ledger's file cannot grow from a given moment on."""

    def __init__(self, kind: str):
        self.kind = kind
        self.connection: sqlite3.Connection | None = None

    def connect(self, path: Path, *, is_new: bool = False) -> sqlite3.Connection:
        self.connection = super().connect(path, is_new=is_new)
        return self.connection

    def point(self, name: str) -> None:
        if name == f"before {self.kind}" and self.connection is not None:
            pages = self.connection.execute("PRAGMA page_count").fetchone()[0]
            self.connection.execute(f"PRAGMA max_page_count = {pages}")


def count_until_full(write: Callable[[], object]) -> int:
    """How often `write` worked before the disk was full."""
    for count in range(1000):
        try:
            write()
        except DiskError:
            return count
    raise AssertionError("the disk never filled up")


def test_after_a_write_error_the_ledger_refuses_all_further_use(tmp_path: Path) -> None:
    path = new_ledger(tmp_path)
    disk = FullDisk("OPEN")
    with open_ledger(path, disk) as ledger:
        written = count_until_full(lambda: ledger.open_run(start_of()))
        for use in (
            lambda: ledger.open_run(start_of()),
            lambda: ledger.charge(1),
            lambda: ledger.burn(Charge(1, 1), "disk"),
        ):
            with pytest.raises(DiskError, match="failed before"):
                use()
    assert written > 0
    assert Ledger.read(path).num_opened == written


def test_a_charge_that_cannot_be_written_is_not_granted(tmp_path: Path) -> None:
    path = new_ledger(tmp_path)
    disk = FullDisk("CHARGE")
    with open_ledger(path, disk) as ledger:
        ledger.open_run(start_of("r" * 2000))  # nearly fills its page
        granted = count_until_full(lambda: ledger.burn(ledger.charge(ledger.next_round), "crash"))
    assert granted < 5
    assert len(Ledger.read(path).charges) == granted


@contextmanager
def no_room() -> Iterator[None]:
    """The system refuses to write beyond a sector: too little for a page or a journal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def half_committed(folder: Path) -> Path:
    """A ledger of which a process died in the middle of a commit: pages and journal are there."""
    path = three_charges(folder)
    (folder / "died").mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
    connection.execute("BEGIN")
    rows = [(seq, "BURN", "x" * 300, b"", str(seq).encode(), b"") for seq in range(100, 300)]
    connection.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", rows)
    for name in ("ledger.sqlite", "ledger.sqlite-journal", "ledger.sqlite.key"):
        shutil.copy(folder / name, folder / "died")
    connection.close()
    return folder / "died" / "ledger.sqlite"


@pytest.mark.parametrize("use", [open_ledger, Ledger.read])
def test_a_disk_that_fails_at_opening_is_not_called_damage(
    tmp_path: Path, use: Callable[[Path], object]
) -> None:
    path = half_committed(tmp_path)
    with no_room(), pytest.raises(DiskError, match="mend the disk"):
        use(path)
    with open_ledger(path) as ledger:  # the refusal freed the lock
        assert len(ledger.history.charges) == 3
    assert stored_rows(path) == stored_rows(tmp_path / "ledger.sqlite")


def test_a_commit_that_the_system_refuses_leaves_the_old_rows(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    before = stored_rows(path)
    with open_ledger(path) as ledger:
        with no_room(), pytest.raises(DiskError):
            ledger.burn(Charge(3, 1), "crash")
        with pytest.raises(DiskError, match="failed before"):
            ledger.open_run(start_of())
    with open_ledger(path) as ledger:
        assert ledger.open_charge == Charge(3, 1)
    assert stored_rows(path) == before


def test_a_folder_that_cannot_be_written_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        Ledger.create(tmp_path / "absent" / "ledger.sqlite", PLAN)
    path = three_charges(tmp_path)
    lock_path = path.with_name(path.name + ".lock")
    lock_path.unlink()
    lock_path.mkdir()
    with pytest.raises(DiskError):
        open_ledger(path)

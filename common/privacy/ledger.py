"""The ledger: append-only, hash-chained, crash-safe record of what a population has spent.

One SQLite file, one writer. A charge is durable before its noise is drawn; its release row is
written after the noised result is durable. Rows are never changed. Epsilon is not stored: it is
recomputed from the charges.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from common.errors import (
    BudgetSpentError,
    DiskError,
    FeddpError,
    LedgerDamagedError,
    LedgerLockedError,
    PlanDiffersError,
)
from common.privacy.disk import Disk
from common.privacy.rows import Body, Charge, History, Release, canonical, charge_body

Row = tuple[int, str, str, bytes, bytes]  # seq, kind, body, prev, hash

APPLICATION_ID = 0xFEDD9
USER_VERSION = 1
TABLE = """CREATE TABLE event(
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL,
  prev BLOB NOT NULL, hash BLOB NOT NULL UNIQUE) STRICT"""
NO_UPDATE = """CREATE TRIGGER no_update BEFORE UPDATE ON event
  BEGIN SELECT RAISE(ABORT, 'append only'); END"""
NO_DELETE = """CREATE TRIGGER no_delete BEFORE DELETE ON event
  BEGIN SELECT RAISE(ABORT, 'append only'); END"""
INSERT = "INSERT INTO event VALUES (?, ?, ?, ?, ?)"
# EXTRA also syncs the folder after the journal is deleted; else a power cut can undo a commit.
PRAGMAS = (("journal_mode", "DELETE", "delete"), ("synchronous", "EXTRA", 3))
DISK_CODES = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
)
CHECKS = (("trusted_schema", "OFF", 0), ("cell_size_check", "ON", 1))


class Ledger:
    """One population's record, held by one process.

    **Guarantee:** opening verifies every row and refuses anything unexpected; a charge beyond the
    plan, or a second one while one is open, is refused before anything is written; after any write
    error the object refuses all further use.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, history: History, disk: Disk):
        self._path = path
        self._connection = connection
        self._history = history
        self._disk = disk
        self._lock: int | None = None
        self._is_failed = False

    @classmethod
    def create(cls, path: Path, plan: Body, *, disk: Disk | None = None) -> None:
        """Makes a new ledger whose first row is the plan.

        Raises:
          DiskError: it exists already, or cannot be written.
          LedgerDamagedError: the row is not a PLAN row.
        """
        disk = disk or Disk()
        if path.exists():
            raise DiskError(f"{path}: exists already; a ledger is never overwritten.")
        first = _next_row(History(), "PLAN", plan)
        with _disk_errors(path):
            connection = disk.connect(path, is_new=True)
            try:
                _set_pragmas(connection)
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {USER_VERSION}")
                for statement in (TABLE, NO_UPDATE, NO_DELETE):
                    connection.execute(statement)
                connection.execute(INSERT, first)
                connection.execute("COMMIT")
            finally:
                connection.close()
            disk.fsync_folder(path.parent)

    @classmethod
    def open(cls, path: Path, *, plan_sha256: str, disk: Disk | None = None) -> "Ledger":
        """Takes the writer's lock and verifies every row. Use as a context manager.

        Raises:
          LedgerLockedError: another process holds it.
          LedgerDamagedError: it does not verify.
          PlanDiffersError: it was made for another plan.
          DiskError: it cannot be read, or a half commit in it cannot be undone.
        """
        disk, path = disk or Disk(), path.resolve()  # one lock, whatever name led here
        _check_present(path)
        lock = _take_lock(path)
        try:
            connection, history = _read(path, disk)
        except BaseException:
            os.close(lock)
            raise
        found = str(history.plan["plan_sha256"])
        if found != plan_sha256:
            connection.close()
            os.close(lock)
            raise PlanDiffersError(
                f"{path}: made for plan {found[:12]}, and this run's is {plan_sha256[:12]}. A "
                "ledger keeps its plan: start a new run for another one."
            )
        ledger = cls(path, connection, history, disk)
        ledger._lock = lock
        return ledger

    @classmethod
    def read(cls, path: Path) -> History:
        """Verifies every row without taking the lock, and tells what they say.

        Raises:
          LedgerLockedError: another process is writing just now.
          LedgerDamagedError: it does not verify.
          DiskError: it cannot be read, or a half commit in it cannot be undone.
        """
        _check_present(path)
        connection, history = _read(path, Disk())
        connection.close()
        return history

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)  # also frees the lock

    @property
    def head(self) -> str:
        """Hash of the last row, hex."""
        return self._history.head.hex()

    @property
    def next_round(self) -> int:
        """The first round that has no release."""
        return self._history.next_round

    @property
    def num_charges(self) -> int:
        """Charges so far, released, burned or open."""
        return len(self._history.charges)

    @property
    def open_charge(self) -> Charge | None:
        """The charge that a crash left without an answer."""
        return self._history.open_charge

    @property
    def last_release(self) -> Release | None:
        """The newest release."""
        return self._history.releases[-1] if self._history.releases else None

    @property
    def releases(self) -> list[Release]:
        """All releases, in the order of their rounds."""
        return list(self._history.releases)

    def open_run(self, run: str) -> None:
        """Writes the OPEN row of a start; its commit also hardens every row that was just read."""
        plan_sha256 = str(self._history.plan["plan_sha256"])
        epoch = self._history.num_opened + 1
        self._append("OPEN", {"run": run, "epoch": epoch, "plan_sha256": plan_sha256})

    def charge(self, round: int) -> Charge:
        """Spends one of the planned charges; durable when this returns.

        Raises:
          BudgetSpentError: no planned charge is left. Nothing is written.
          LedgerDamagedError: not the next round, or a charge is open.
        """
        plan, charge = self._history.plan, self._history.next_charge
        if self.num_charges >= int(plan["num_charges"]):
            raise BudgetSpentError(
                f"The promise allows {plan['num_charges']} charges for {plan['num_rounds']} rounds "
                "and all are spent. Requested 1, remaining 0, difference 1. The adapter of round "
                f"{self.next_round - 1} is the last; in a new run, `privacy.spare-attempts` plans "
                "for more crashes."
            )
        if round != charge.round or self.open_charge is not None:
            raise LedgerDamagedError(f"A charge for round {round} cannot follow.")
        self._append("CHARGE", charge_body(plan, charge))
        return charge

    def release(self, charge: Charge, sha256: str) -> None:
        """Records the one answer of a charge; the file with that digest is durable already."""
        row: Body = {"round": charge.round, "attempt": charge.attempt, "sha256": sha256}
        self._append("RELEASE", row)

    def burn(self, charge: Charge, cause: str) -> None:
        """Records that a charge got no answer: "crash", "disk" or "operator". It stays spent."""
        self._append("BURN", {"round": charge.round, "attempt": charge.attempt, "cause": cause})

    def _append(self, kind: str, body: Body) -> None:
        if self._is_failed:
            raise DiskError(f"{self._path}: a write failed before; open the ledger again.")
        row = _next_row(self._history, kind, body)
        self._is_failed = True  # until the commit is known to be durable
        self._disk.point(f"before {kind}")
        with _disk_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(INSERT, row)
            self._connection.execute("COMMIT")
        self._is_failed = False
        self._disk.point(f"after {kind}")


def _next_row(history: History, kind: str, body: Body) -> Row:
    """Adds a row to the history and returns it as it is stored."""
    previous = history.head
    digest = history.apply(kind, body)
    return (history.num_rows, kind, canonical(body), previous, digest)


def _check_present(path: Path) -> None:
    if not path.is_file():
        raise LedgerDamagedError(f"{path}: missing. A lost ledger counts as a spent budget.")


def _read(path: Path, disk: Disk) -> tuple[sqlite3.Connection, History]:
    """A verified connection and what its rows say."""
    with _disk_errors(path):
        connection = disk.connect(path)
    try:
        _set_pragmas(connection)
        _check_file(connection, path)
        history = History()
        rows = connection.execute("SELECT seq, kind, body, prev, hash FROM event ORDER BY seq")
        for row in rows:
            _check_row(history, row)
        if history.num_rows == 0:  # a damaged file can look like an empty table
            raise LedgerDamagedError(f"{path}: has no plan.")
    except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
        connection.close()
        raise _refusal(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection, history


def _refusal(path: Path, error: Exception) -> FeddpError:
    """Why a file cannot be opened: somebody writes it, its disk fails, or it is no sound ledger."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the detail
    if code == sqlite3.SQLITE_BUSY:
        return LedgerLockedError(f"{path}: being written just now; try again.")
    if code in DISK_CODES:  # undoing a half commit writes
        return _disk_error(path, str(error))
    return LedgerDamagedError(f"{path}: damaged ({type(error).__name__}: {error}).")


def _check_file(connection: sqlite3.Connection, path: Path) -> None:
    found = (
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
        connection.execute("PRAGMA integrity_check").fetchall(),
        {row[0] for row in connection.execute("SELECT sql FROM sqlite_schema WHERE sql NOT NULL")},
    )
    if found != (APPLICATION_ID, USER_VERSION, [("ok",)], {TABLE, NO_UPDATE, NO_DELETE}):
        raise LedgerDamagedError(f"{path}: not an intact ledger of version {USER_VERSION}.")


def _check_row(history: History, row: Row) -> None:
    seq, kind, text, _, _ = row
    body = json.loads(text)
    if not isinstance(body, dict) or _next_row(history, kind, body) != row:
        raise LedgerDamagedError(f"Ledger row {seq}: not what follows the row before it.")


def _set_pragmas(connection: sqlite3.Connection) -> None:
    """Sets and reads back: SQLite ignores what it cannot do."""
    for name, value, expected in (*CHECKS, *PRAGMAS):
        connection.execute(f"PRAGMA {name} = {value}")
        if connection.execute(f"PRAGMA {name}").fetchone()[0] != expected:
            raise LedgerDamagedError(f"SQLite refuses {name} = {value}; no ledger without it.")


def _take_lock(path: Path) -> int:
    """A descriptor that holds the writer's lock until it is closed."""
    lock_path = path.with_name(path.name + ".lock")
    with _disk_errors(lock_path):
        lock = os.open(lock_path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(lock, 20, 0).decode(errors="replace") or "unknown"
            os.close(lock)
            raise LedgerLockedError(
                f"{path}: held by process {holder}. One run writes a ledger at a time; wait for "
                "it, or stop it."
            ) from error
        except BaseException:
            os.close(lock)
            raise
    return lock


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise _disk_error(path, reason) from error


def _disk_error(path: Path, reason: str) -> DiskError:
    return DiskError(
        f"{path}: cannot be used ({reason}). Whatever was charged stays spent; mend the disk and "
        "resume."
    )

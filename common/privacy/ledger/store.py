"""The ledger's file: one SQLite table, opened with suspicion and committed durably."""

import fcntl
import json
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from feddp.common.disk import Disk, disk_error, disk_errors, is_remote
from feddp.common.errors import DiskError, FeddpError, LedgerDamagedError, LedgerLockedError
from feddp.common.privacy.ledger.history import GENESIS, Body, History, canonical
from feddp.common.privacy.ledger.signing import is_signed

Row = tuple[int, str, str, bytes, bytes, bytes]  # seq, kind, body, prev, hash, sig

APPLICATION_ID = 0xFEDD9
USER_VERSION = 1
TABLE = """CREATE TABLE event(
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL,
  prev BLOB NOT NULL, hash BLOB NOT NULL UNIQUE, sig BLOB NOT NULL) STRICT"""
NO_UPDATE = """CREATE TRIGGER no_update BEFORE UPDATE ON event
  BEGIN SELECT RAISE(ABORT, 'append only'); END"""
NO_DELETE = """CREATE TRIGGER no_delete BEFORE DELETE ON event
  BEGIN SELECT RAISE(ABORT, 'append only'); END"""
INSERT = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)"
SELECT = "SELECT seq, kind, body, prev, hash, sig FROM event ORDER BY seq"
# EXTRA also syncs the folder after the journal is deleted; else a power cut can undo a commit.
PRAGMAS = (("journal_mode", "DELETE", "delete"), ("synchronous", "EXTRA", 3))
DISK_CODES = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
)
CHECKS = (("trusted_schema", "OFF", 0), ("cell_size_check", "ON", 1))


@dataclass
class Content:
    """What a verified file holds.

    Attributes:
      history: what its rows say.
      rows: in order.
    """

    history: History = field(default_factory=History)
    rows: list[Row] = field(default_factory=list)

    @property
    def signature(self) -> bytes:
        """The signature of the last row."""
        return self.rows[-1][5]


def create_file(path: Path, first: Row, disk: Disk) -> None:
    """A new file with its first row, durable.

    Raises:
      DiskError: it cannot be written.
    """
    with disk_errors(path):
        connection = disk.connect(path, is_new=True)
        try:
            set_pragmas(connection)
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


def read_file(path: Path, disk: Disk) -> tuple[sqlite3.Connection, Content]:
    """A connection, and what the verified rows say.

    Raises:
      LedgerLockedError: another process is writing just now.
      LedgerDamagedError: it is missing or does not verify.
      DiskError: it cannot be read, or a half commit in it cannot be undone.
    """
    if not path.is_file():
        raise LedgerDamagedError(f"{path}: missing. A lost ledger counts as a spent budget.")
    with disk_errors(path):
        connection = disk.connect(path)
    try:
        set_pragmas(connection)
        _check_file(connection, path)
        content = Content()
        for row in connection.execute(SELECT):
            check_row(content.history, row)
            content.rows.append(row)
        if not content.rows:  # a damaged file can look like an empty table
            raise LedgerDamagedError(f"{path}: has no plan.")
    except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
        connection.close()
        raise _refusal(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection, content


def append_row(connection: sqlite3.Connection, row: Row) -> None:
    """Appends a row, durable when this returns; after an error it may or may not be.

    Raises:
      sqlite3.Error: it was not written, or not durably.
    """
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(INSERT, row)
    connection.execute("COMMIT")


def check_row(history: History, row: Row) -> None:
    """Adds a stored row to the history that it must follow.

    Raises:
      LedgerDamagedError: it is not what follows, or the key of that moment did not sign it.
    """
    seq, kind, text, previous, head, signature = row
    body = json.loads(text)
    key = history.public_key
    if not isinstance(body, dict) or canonical(body) != text or previous != history.head:
        raise LedgerDamagedError(f"Ledger row {seq}: not what follows the row before it.")
    if (history.apply(kind, body), history.num_rows) != (head, seq):
        raise LedgerDamagedError(f"Ledger row {seq}: not what follows the row before it.")
    if not is_signed(key or history.public_key, head, signature):
        raise LedgerDamagedError(f"Ledger row {seq}: not signed by the ledger's key.")


def check_local(folder: Path, disk: Disk) -> None:
    """Refuses a file system of another machine, whose locks and syncs cannot be relied on.

    Raises:
      DiskError: it is one.
    """
    found = disk.filesystem(folder)
    if is_remote(found):
        raise DiskError(
            f"{folder}: is on {found}, a network or user-space file system, where neither locks "
            "nor syncs are reliable. Keep the ledger on a local disk (ext4, xfs, btrfs ...)."
        )


def take_lock(path: Path) -> int:
    """A descriptor that holds the writer's lock until it is closed.

    Raises:
      LedgerLockedError: another process holds it.
      DiskError: the lock file cannot be written.
    """
    lock_path = path.with_name(path.name + ".lock")
    with disk_errors(lock_path):
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


def copy_file(path: Path, target: Path, disk: Disk) -> Content:
    """A verified copy of a ledger, also while a run writes it.

    Raises:
      DiskError: the target exists or cannot be written.
      LedgerDamagedError: the ledger or its copy does not verify.
    """
    connection, _ = read_file(path, disk)
    try:
        with disk_errors(target):
            if target.exists():
                raise DiskError(f"{target}: exists already; a backup is never overwritten.")
            connection.execute("VACUUM INTO ?", (str(target),))
            disk.fsync(target)
            disk.fsync_folder(target.parent)
    finally:
        connection.close()
    copy, content = read_file(target, disk)
    copy.close()
    return content


def set_pragmas(connection: sqlite3.Connection) -> None:
    """Sets and reads back: SQLite ignores what it cannot do.

    Raises:
      LedgerDamagedError: one is not in force.
    """
    for name, value, expected in (*CHECKS, *PRAGMAS):
        connection.execute(f"PRAGMA {name} = {value}")
        if connection.execute(f"PRAGMA {name}").fetchone()[0] != expected:
            raise LedgerDamagedError(f"SQLite refuses {name} = {value}; no ledger without it.")


def new_row(history: History, kind: str, body: Body, signature: bytes) -> Row:
    """The row that was just added to a history, as it is stored."""
    previous = history.heads[-2] if history.num_rows else GENESIS
    return (history.num_rows, kind, canonical(body), previous, history.head, signature)


def _check_file(connection: sqlite3.Connection, path: Path) -> None:
    found = (
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
        connection.execute("PRAGMA integrity_check").fetchall(),
        {row[0] for row in connection.execute("SELECT sql FROM sqlite_schema WHERE sql NOT NULL")},
    )
    if found != (APPLICATION_ID, USER_VERSION, [("ok",)], {TABLE, NO_UPDATE, NO_DELETE}):
        raise LedgerDamagedError(f"{path}: not an intact ledger of version {USER_VERSION}.")


def _refusal(path: Path, error: Exception) -> FeddpError:
    """Why a file cannot be opened: somebody writes it, its disk fails, or it is no sound ledger."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the detail
    if code == sqlite3.SQLITE_BUSY:
        return LedgerLockedError(f"{path}: being written just now; try again.")
    if code in DISK_CODES:  # undoing a half commit writes
        return disk_error(path, str(error))
    return LedgerDamagedError(f"{path}: damaged ({type(error).__name__}: {error}).")

"""A disk that kills its process at a chosen step, and a log that outlives every crash."""

import hashlib
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

from feddp.common.disk import PRIVATE, Disk


class OutsideLog:
    """What left the process. One system call a line: a killed process loses none."""

    def __init__(self, path: Path):
        self._path = path

    def add(self, *words: object) -> None:
        """Appends one line."""
        line = " ".join(str(word) for word in words) + "\n"
        descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def lines(self, kind: str) -> list[list[str]]:
        """The words of all lines of a kind, without the kind."""
        if not self._path.exists():
            return []
        words = [line.split() for line in self._path.read_text().splitlines()]
        return [line[1:] for line in words if line[0] == kind]


class CrashDisk(Disk):
    """Counts every step of the protocol, and dies at one of them.

    Steps: named points, each SQL statement of the ledger, both sides of every file operation, and
    the middle of a write. What a checkpoint file is meant to hold is logged first: it is noised, so
    from here on it counts as an answer.
    """

    def __init__(self, log: OutsideLog, dies_at: int | None = None):
        self.num_steps = 0
        self._log = log
        self._dies_at = dies_at

    def step(self, name: str) -> None:
        """One more moment at which a process can die."""
        self.num_steps += 1
        if self.num_steps == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def point(self, name: str) -> None:
        self.step(name)

    def connect(self, path: Path, *, is_new: bool = False) -> sqlite3.Connection:
        connection = super().connect(path, is_new=is_new)
        connection.set_trace_callback(self.step)
        return connection

    def write(self, path: Path, content: bytes, mode: int = PRIVATE) -> None:
        self._log.add("answer", path.name.partition(".")[0], hashlib.sha256(content).hexdigest())
        self.step("before write")
        path.write_bytes(content[: len(content) // 2])
        self.step("inside write")
        super().write(path, content, mode)
        self.step("after write")

    def fsync(self, path: Path) -> None:
        self._around("fsync", lambda: super(CrashDisk, self).fsync(path))

    def rename(self, source: Path, target: Path) -> None:
        self._around("rename", lambda: super(CrashDisk, self).rename(source, target))

    def fsync_folder(self, path: Path) -> None:
        self._around("fsync_folder", lambda: super(CrashDisk, self).fsync_folder(path))

    def remove(self, path: Path) -> None:
        self._around("remove", lambda: super(CrashDisk, self).remove(path))

    def _around(self, name: str, operation: Callable[[], None]) -> None:
        self.step(f"before {name}")
        operation()
        self.step(f"after {name}")


class FailingDisk(Disk):
    """Raises one OSError at the n-th file operation, counted from 1; its names are kept."""

    def __init__(self, fails_at: int = 0, error: int = 0):
        self.names: list[str] = []
        self._fails_at = fails_at
        self._error = error

    def write(self, path: Path, content: bytes, mode: int = PRIVATE) -> None:
        if self._is_now("write"):
            path.write_bytes(content[: len(content) // 3])
            self._fail()
        super().write(path, content, mode)

    def fsync(self, path: Path) -> None:
        if self._is_now("fsync"):
            self._fail()
        super().fsync(path)

    def rename(self, source: Path, target: Path) -> None:
        if self._is_now("rename"):
            self._fail()
        super().rename(source, target)

    def fsync_folder(self, path: Path) -> None:
        if self._is_now("fsync_folder"):
            self._fail()
        super().fsync_folder(path)

    def remove(self, path: Path) -> None:
        if self._is_now("remove"):
            self._fail()
        super().remove(path)

    def free_bytes(self, path: Path) -> int:
        if self._is_now("free_bytes"):
            self._fail()
        return super().free_bytes(path)

    def _is_now(self, name: str) -> bool:
        self.names.append(name)
        return len(self.names) == self._fails_at

    def _fail(self) -> None:
        raise OSError(self._error, os.strerror(self._error))

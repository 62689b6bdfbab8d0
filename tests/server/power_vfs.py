"""SQLite's own file operations as steps of a machine; needs apsw."""

import os
import sqlite3
from pathlib import Path
from typing import Any, cast

import apsw
from power_machine import Machine

_keep: list[apsw.VFS] = []  # SQLite borrows it


def connect(path: Path, machine: Machine) -> sqlite3.Connection:
    """A connection whose every write, truncation, sync and deletion the machine sees."""
    medium = machine.medium

    class File(apsw.VFSFile):
        def __init__(self, name: Any, flags: Any):
            self.path = name if isinstance(name, str) else str(name.filename())
            # As in SQLite's unix layer: the flag decides, though a crash left the journal behind.
            self.must_sync_folder = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
            is_new = not os.path.exists(self.path)
            super().__init__("", name, flags)
            if is_new:
                medium.created(self.path)
                machine.step()

        def xWrite(self, data: bytes, offset: int) -> None:
            half = len(data) // 2
            for start, part in ((0, data[:half]), (half, data[half:])):
                machine.step()
                if part:
                    super().xWrite(part, offset + start)

        def xTruncate(self, size: int) -> None:
            machine.step()
            super().xTruncate(size)

        def xSync(self, flags: int) -> None:
            machine.step()
            medium.synced(self.path)
            if self.must_sync_folder:
                machine.step()
                medium.synced(os.path.dirname(self.path))
                self.must_sync_folder = False

    class Layer(apsw.VFS):
        def xOpen(self, name: Any, flags: Any) -> Any:
            return File(name, flags)

        def xDelete(self, name: str, is_folder_synced: bool) -> None:
            machine.step()
            medium.delete(name)
            machine.step()
            if is_folder_synced:
                medium.synced(os.path.dirname(name))

    _keep.append(Layer("power", ""))
    flags = apsw.SQLITE_OPEN_READWRITE
    return cast(sqlite3.Connection, apsw.Connection(str(path), flags=flags, vfs="power"))

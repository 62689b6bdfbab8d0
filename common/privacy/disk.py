"""Durable file operations: the seam at which tests make a disk die, fill up or lie."""

import os
import shutil
import sqlite3
from pathlib import Path


class Disk:
    """The real thing. Every step of the charge-and-release protocol passes through it."""

    def connect(self, path: Path, *, is_new: bool = False) -> sqlite3.Connection:
        """A connection that never creates a missing file unless `is_new`."""
        mode = "rwc" if is_new else "rw"
        uri = f"{path.resolve().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None)

    def point(self, name: str) -> None:
        """A named moment of the protocol; a crash test dies here."""

    def write(self, path: Path, content: bytes) -> None:
        """Writes a whole new file and makes its bytes durable; its name is not yet."""
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def fsync(self, path: Path) -> None:
        """Makes the bytes of an existing file durable."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Atomically puts `source` in the place of `target`."""
        os.replace(source, target)

    def fsync_folder(self, path: Path) -> None:
        """Makes the names in a folder durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Deletes a file that nothing needs any more."""
        os.unlink(path)

    def free_bytes(self, path: Path) -> int:
        """How much may still be written to the file system of a folder."""
        return shutil.disk_usage(path).free

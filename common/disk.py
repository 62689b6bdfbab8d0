"""Durable file operations: the seam at which tests make a disk die, fill up or lie."""

import hashlib
import os
import platform
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from feddp.common.errors import DiskError

PRIVATE, PUBLIC = 0o600, 0o644
# The time stamp of what a run leaves, 1980-01-01: when a file was written tells how long it took.
TIME_NS = 315_532_800_000_000_000
MOUNTS_PATH = Path("/proc/self/mountinfo")
BOOT_PATH = Path("/proc/sys/kernel/random/boot_id")
# Locks and syncs reach the disk of another machine late, or never.
REMOTE = re.compile(r"nfs\d?|cifs|smb\w*|9p|fuse.*|afs|ceph|glusterfs|lustre|gpfs|beegfs|virtiofs")


class Disk:
    """The real disk. Every step of the release protocol passes through it."""

    def connect(self, path: Path, *, is_new: bool = False) -> sqlite3.Connection:
        """A connection that never creates a missing file unless `is_new`."""
        mode = "rwc" if is_new else "rw"
        uri = f"{path.resolve().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None)

    def point(self, name: str) -> None:
        """A named moment of the protocol; a crash test dies here."""

    def replace(
        self, path: Path, content: bytes, *, mode: int = PRIVATE, is_shared: bool = False
    ) -> None:
        """Durably puts `content` in the place of a file, or makes it: whole, or not at all.

        Args:
          path: of the file; `path` with ".tmp" appended is what a crash may leave behind.
          mode: of the file from its first byte on, less the umask.
          is_shared: other processes replace it at the same time; the last one wins.
        """
        owner = f".{os.getpid()}" if is_shared else ""
        temporary = path.with_name(f"{path.name}{owner}.tmp")
        if os.path.lexists(temporary):
            self.remove(temporary)  # it may be open to others, or lead elsewhere
        self.write(temporary, content, mode)
        self.rename_durably(temporary, path)

    def rename_durably(self, source: Path, target: Path) -> None:
        """Gives a file or folder whose content is durable its name in the same folder, for good."""
        self.rename(source, target)
        self.fsync_folder(target.parent)

    def place_folder(self, making: Path, folder: Path) -> None:
        """Durably gives a finished folder its name: after a power cut it is whole, or not there."""
        for path in (*making.rglob("*"), making):
            self.fsync(path)
        self.rename_durably(making, folder)

    def write(self, path: Path, content: bytes, mode: int = PRIVATE) -> None:
        """Writes a whole new file and makes its bytes durable; its name is not yet."""
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.utime(descriptor, ns=(TIME_NS, TIME_NS))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def fsync(self, path: Path) -> None:
        """Makes the bytes of a file, or the names in a folder, durable."""
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
        """Deletes a file that is no longer needed."""
        os.unlink(path)

    def free_bytes(self, path: Path) -> int:
        """How much may still be written to the file system of a folder."""
        return shutil.disk_usage(path).free

    def filesystem(self, path: Path) -> str:
        """Type of the file system of an existing path, as in "ext4"; "" where it is unknown."""
        if not MOUNTS_PATH.is_file():
            return ""
        return filesystem_of(str(path.resolve()), MOUNTS_PATH.read_text(encoding="utf-8"))


def remove_times(folder: Path) -> None:
    """Gives a folder and all that is in it the same time stamp: whoever gets it learns no duration.

    What another user owns, or vanishes meanwhile, keeps its own.
    """
    for path in (*folder.rglob("*"), folder):
        with suppress(OSError):
            os.utime(path, ns=(TIME_NS, TIME_NS), follow_symlinks=False)


def filesystem_of(path: str, mounts: str) -> str:
    """Type of the file system that holds an absolute path, from the text of mountinfo.

    >>> mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\\n2 1 0:9 / /mnt/far rw - nfs4 host:/x rw"
    >>> filesystem_of("/mnt/far/ledger", mounts), filesystem_of("/mnt/farther", mounts)
    ('nfs4', 'ext4')
    """
    longest, found = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split()[4])
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= longest:  # the last of equals hides the others
            longest, found = len(point), after.split()[0]
    return found


def is_remote(filesystem: str) -> bool:
    """Whether a file system of this type cannot keep a ledger."""
    return REMOTE.fullmatch(filesystem) is not None


def host_id() -> str:
    """The machine and its current boot, as 16 hex digits that identify neither."""
    boot = BOOT_PATH.read_text() if BOOT_PATH.is_file() else ""
    return hashlib.sha256(f"{platform.node()}/{boot}".encode()).hexdigest()[:16]


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk raises into what a person can act on."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise disk_error(path, reason) from error


def disk_error(path: Path, reason: str) -> DiskError:
    """The error of a disk that fails, for a person."""
    return DiskError(
        f"{path}: cannot be used ({reason}). Whatever was charged stays spent; mend the disk and "
        "resume."
    )

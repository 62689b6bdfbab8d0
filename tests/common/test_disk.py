"""Durable file operations do what their names say."""

import os
import stat
from pathlib import Path

import pytest

from feddp.common.disk import Disk, filesystem_of, host_id, is_remote


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Name and size of whatever the operating system was asked to make durable."""
    calls: list[tuple[str, int]] = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        sync(descriptor)
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        calls.append((name, os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", record)
    return calls


def test_a_written_file_is_whole_private_and_durable(
    tmp_path: Path, synced: list[tuple[str, int]]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"something longer that was here before")
    path.chmod(0o600)
    Disk().write(path, b"content")
    assert path.read_bytes() == b"content"
    assert synced == [("file", 7)]
    Disk().write(tmp_path / "new", b"")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: write(descriptor, view[:3]))
    Disk().write(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_files_and_folders_are_synced_by_name(
    tmp_path: Path, synced: list[tuple[str, int]]
) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    Disk().fsync(tmp_path / "file")
    Disk().fsync_folder(tmp_path)
    assert [name for name, _ in synced] == ["file", tmp_path.name]


def test_a_renamed_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    Disk().rename(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_bytes() == b"new"


def test_removing_and_counting_free_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    Disk().remove(tmp_path / "file")
    assert not (tmp_path / "file").exists()
    with pytest.raises(FileNotFoundError):
        Disk().remove(tmp_path / "file")
    usage = os.statvfs(tmp_path)
    assert Disk().free_bytes(tmp_path) == pytest.approx(usage.f_bavail * usage.f_frsize, rel=0.05)


def test_a_connection_creates_a_file_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    connection = Disk().connect(path, is_new=True)
    connection.execute("CREATE TABLE t(x)")
    connection.close()
    assert path.stat().st_size > 0


def test_the_file_system_is_that_of_the_nearest_mount() -> None:
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 0:9 / /mnt/a\\040b rw shared:1 - nfs4 host:/x rw\n"
        "3 1 0:9 / /mnt/a\\040b/c rw - tmpfs none rw\n"
    )
    found = [filesystem_of(path, mounts) for path in ("/mnt/a b", "/mnt/a b/x", "/mnt/a b/c/d")]
    assert found == ["nfs4", "nfs4", "tmpfs"]
    assert filesystem_of("/mnt/a bc", mounts) == "ext4"


def test_this_machines_file_system_is_known(tmp_path: Path) -> None:
    assert Disk().filesystem(tmp_path)
    assert not is_remote(Disk().filesystem(tmp_path))


def test_a_host_has_one_id_and_shows_no_name() -> None:
    assert host_id() == host_id()
    assert len(host_id()) == 16

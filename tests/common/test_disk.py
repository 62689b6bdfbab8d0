"""Durable file operations do what their names say."""

import os
import stat
from pathlib import Path

import pytest

from feddp.common.disk import (
    PRIVATE,
    PUBLIC,
    TIME_NS,
    Disk,
    filesystem_of,
    host_id,
    is_remote,
    remove_times,
)


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


def test_a_replaced_file_is_durable_before_its_name_and_its_name_before_the_end(
    tmp_path: Path, synced: list[tuple[str, int]]
) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        synced.clear()
        Disk().replace(path, content)
        assert path.read_bytes() == content
        assert synced[0] == ("file.tmp", len(content))
        assert [name for name, _ in synced] == ["file.tmp", tmp_path.name]
        assert [found.name for found in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("failing", ["write", "rename"])
def test_a_file_that_cannot_be_replaced_stays_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(self: Disk, path: Path, *rest: object) -> None:
        path.write_bytes(b"ne")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Disk, failing, full)
        with pytest.raises(OSError, match="No space"):
            Disk().replace(path, b"new")
    assert path.read_bytes() == b"old"
    Disk().replace(path, b"new")
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"new"]


@pytest.mark.parametrize("mode", [PRIVATE, PUBLIC, 0o640])
def test_a_replaced_file_has_its_own_mode_whatever_lay_there(tmp_path: Path, mode: int) -> None:
    path, left, other = tmp_path / "file", tmp_path / "file.tmp", tmp_path / "other"
    for leave in (lambda: left.write_bytes(b"torn"), lambda: left.symlink_to(other)):
        leave()
        path.write_bytes(b"old")
        path.chmod(0o666)
        Disk().replace(path, b"new", mode=mode)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert path.read_bytes() == b"new"
        assert not path.is_symlink()
        assert not other.exists()


def test_two_processes_never_write_to_the_same_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    rename = Disk.rename

    def note(self: Disk, source: Path, target: Path) -> None:
        written.append(source)
        rename(self, source, target)

    monkeypatch.setattr(Disk, "rename", note)
    for process in (11, 12):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        Disk().replace(tmp_path / "file", b"content", is_shared=True)
    assert len({path.name for path in written}) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_durable_with_all_that_lies_in_it_before_it_gets_its_name(
    tmp_path: Path, synced: list[tuple[str, int]]
) -> None:
    making = tmp_path / "making"
    (making / "inner").mkdir(parents=True)
    (making / "inner" / "file").write_bytes(b"12345")
    Disk().place_folder(making, tmp_path / "made")
    names = [name for name, _ in synced]
    assert set(names[:2]) == {"inner", "file"}
    assert names[2:] == ["making", tmp_path.name]
    assert (tmp_path / "made" / "inner" / "file").read_bytes() == b"12345"
    assert not making.exists()


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


def test_what_is_written_tells_no_time(tmp_path: Path) -> None:
    Disk().replace(tmp_path / "file", b"content")
    assert (tmp_path / "file").stat().st_mtime_ns == TIME_NS
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    remove_times(tmp_path)
    found = {path.lstat().st_mtime_ns for path in (*tmp_path.rglob("*"), tmp_path)}
    assert found == {TIME_NS}

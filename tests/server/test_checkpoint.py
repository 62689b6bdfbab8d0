"""Checkpoints: whole or absent, adopted or burned, never another file than the released one."""

import errno
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crash_disk import FailingDisk
from crash_rules import quick_folder
from safetensors.numpy import save
from small_ledger import small_plan
from small_run import checkpoint_path, create, live, write_checkpoint

from feddp.common.disk import Disk
from feddp.common.errors import DiskError, LedgerDamagedError
from feddp.common.privacy.ledger.history import Charge, Release
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import read_released
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of
from feddp.server.checkpoint import Checkpoint, Checkpoints, RoundState

PLAN = small_plan()
STATE = RoundState(
    round=1,
    adapter=np.array([0.5, -0.0, 1e-45, 3e38], dtype=np.float32),
    moments={"first": np.array([1e-310, 1.0, -2.0, 0.1]), "second": np.arange(4.0)},
    clipping_norm=0.1 + 0.2,
)
CHECKPOINT = Checkpoint(STATE, attempt=1, plan_sha256=PLAN.sha256)
PATH = "round-000001-attempt-1.safetensors"


def checkpoints_in(folder: Path) -> Checkpoints:
    return Checkpoints(folder, PLAN.sha256)


def parsed(content: bytes) -> Checkpoint | None:
    return checkpoints_in(Path()).parse(content, Charge(1, 1))


def assert_same(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    assert (found.attempt, found.plan_sha256) == (expected.attempt, expected.plan_sha256)
    state, kept = found.state, expected.state
    assert (state.round, state.clipping_norm) == (kept.round, kept.clipping_norm)
    assert state.adapter.dtype == np.float32
    assert state.adapter.tobytes() == kept.adapter.tobytes()
    assert set(state.moments) == set(kept.moments)
    for name, values in kept.moments.items():
        assert state.moments[name].dtype == np.float64
        assert state.moments[name].tobytes() == values.tobytes()


# The file


def test_a_checkpoint_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    digest = write_checkpoint(tmp_path, CHECKPOINT, Disk())
    assert [path.name for path in tmp_path.iterdir()] == [PATH]
    assert hashlib.sha256((tmp_path / PATH).read_bytes()).hexdigest() == digest
    assert_same(read_released(checkpoints_in(tmp_path), Release(1, 1, digest)), CHECKPOINT)


def test_equal_checkpoints_have_equal_bytes(tmp_path: Path) -> None:
    digests = {write_checkpoint(tmp_path, CHECKPOINT, Disk()) for _ in range(20)}
    assert len(digests) == 1


def test_an_optimizer_without_moments_has_checkpoints_too(tmp_path: Path) -> None:
    bare = replace(CHECKPOINT, state=replace(STATE, moments={}))
    digest = write_checkpoint(tmp_path, bare, Disk())
    assert_same(read_released(checkpoints_in(tmp_path), Release(1, 1, digest)), bare)


def test_any_flipped_bit_makes_a_checkpoint_unreadable(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, CHECKPOINT, Disk())
    content = (tmp_path / PATH).read_bytes()
    for index in range(len(content)):
        for bit in (index % 8, (index + 3) % 8):
            changed = bytearray(content)
            changed[index] ^= 1 << bit
            found = parsed(bytes(changed))
            if found is not None:  # a bit of white space, or of a key that nothing reads
                assert_same(found, CHECKPOINT)
                assert index < len(content) - STATE.adapter.nbytes - 64


def test_a_torn_checkpoint_is_unreadable(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, CHECKPOINT, Disk())
    content = (tmp_path / PATH).read_bytes()
    for size in range(len(content)):
        assert parsed(content[:size]) is None
        assert parsed(content[:size] + bytes(len(content) - size)) is None or not any(
            content[size:]
        )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        save({"adapter": STATE.adapter}),
        save({"adapter": STATE.adapter}, metadata={"feddp-checkpoint": "{}"}),
        save({"adapter": STATE.adapter}, metadata={"feddp-checkpoint": "[]"}),
        save({"adapter": STATE.adapter}, metadata={"feddp-checkpoint": "x"}),
        save({"other": STATE.adapter}, metadata={"feddp-checkpoint": '{"round": 1}'}),
    ],
)
def test_a_file_of_somebody_else_is_no_checkpoint(content: bytes) -> None:
    assert parsed(content) is None


def test_only_the_released_bytes_are_accepted(tmp_path: Path) -> None:
    digest = write_checkpoint(tmp_path, CHECKPOINT, Disk())
    other = replace(CHECKPOINT, state=replace(STATE, adapter=STATE.adapter + 1))
    write_checkpoint(tmp_path, other, Disk())  # sound, and not what was released
    with pytest.raises(LedgerDamagedError, match="restore the file"):
        read_released(checkpoints_in(tmp_path), Release(1, 1, digest))


def test_a_missing_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerDamagedError, match="missing"):
        read_released(checkpoints_in(tmp_path), Release(1, 1, "0" * 64))


def test_the_bytes_are_durable_before_the_name_and_the_name_before_the_end(tmp_path: Path) -> None:
    disk = FailingDisk()
    write_checkpoint(tmp_path, CHECKPOINT, disk)
    assert disk.names == ["write", "rename", "fsync_folder"]


@pytest.mark.parametrize("keep", [1, 3])
def test_pruning_keeps_the_newest_rounds_and_what_is_not_ours(tmp_path: Path, keep: int) -> None:
    names = [checkpoint_path(tmp_path, round, 1).name for round in range(1, 8)]
    others = ["round-000001-attempt-1.tmp", "notes.txt", "around-000001-attempt-1.safetensors"]
    for name in (*names, *others):
        (tmp_path / name).touch()
    checkpoints_in(tmp_path).prune(Disk(), last_round=7, keep=keep)
    assert {path.name for path in tmp_path.iterdir()} == {*names[-keep:], *others}


@pytest.mark.parametrize(("missing", "is_enough"), [(0, True), (1, False)])
def test_a_round_needs_room_for_two_checkpoints(
    tmp_path: Path, missing: int, is_enough: bool
) -> None:
    class Nearly(Disk):
        def free_bytes(self, path: Path) -> int:
            return 1000 - missing

    if is_enough:
        checkpoints_in(tmp_path).check_free_space(1000, Nearly())
    else:
        with pytest.raises(DiskError, match="999 bytes free, 1,000 needed"):
            checkpoints_in(tmp_path).check_free_space(1000, Nearly())


def test_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    checkpoints_in(tmp_path).check_free_space(1, Disk())
    with pytest.raises(DiskError):
        checkpoints_in(tmp_path).check_free_space(1 << 80, Disk())


# Recovery


@pytest.fixture
def charged(tmp_path: Path) -> Iterator[tuple[Ledger, Path]]:
    """A ledger with an open charge, and the folder of its checkpoints."""
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, plan_row(PLAN))
    with Ledger.open(path) as ledger:
        ledger.open_run(start_of("r", PLAN))
        ledger.charge(1)
        (tmp_path / "checkpoints").mkdir()
        yield ledger, tmp_path / "checkpoints"


def test_a_finished_checkpoint_is_adopted_byte_for_byte(charged: tuple[Ledger, Path]) -> None:
    ledger, folder = charged
    digest = write_checkpoint(folder, CHECKPOINT, Disk())
    before = (folder / PATH).read_bytes()
    checkpoints_in(folder).recover(ledger, Disk())
    assert ledger.last_release == Release(1, 1, digest, repr(STATE.clipping_norm))
    assert ledger.num_charges == 1
    assert (folder / PATH).read_bytes() == before


def test_an_adopted_file_is_synced_again_before_its_release(
    charged: tuple[Ledger, Path],
) -> None:
    ledger, folder = charged
    write_checkpoint(folder, CHECKPOINT, Disk())
    seen: list[object] = []

    class Watching(FailingDisk):
        def fsync(self, path: Path) -> None:
            seen.append((path.name, ledger.last_release))
            super().fsync(path)

        def fsync_folder(self, path: Path) -> None:
            seen.append((path.name, ledger.last_release))
            super().fsync_folder(path)

    checkpoints_in(folder).recover(ledger, Watching())
    assert seen == [(PATH, None), ("checkpoints", None)]
    assert ledger.last_release is not None


def _nothing(folder: Path) -> None:
    """No file at all."""


def _whole_temporary(folder: Path) -> None:
    write_checkpoint(folder, CHECKPOINT, Disk())
    (folder / PATH).rename(folder / f"{PATH}.tmp")


def _torn(folder: Path) -> None:
    write_checkpoint(folder, CHECKPOINT, Disk())
    (folder / PATH).write_bytes((folder / PATH).read_bytes()[:-1])


def _of_another(**change: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_checkpoint(folder, replace(CHECKPOINT, **change), Disk())  # type: ignore[arg-type]
        (found,) = folder.iterdir()
        found.rename(folder / PATH)

    return write


@pytest.mark.parametrize(
    "leave",
    [
        _nothing,
        _whole_temporary,
        _torn,
        _of_another(plan_sha256="0" * 64),
        _of_another(attempt=2),
        _of_another(state=replace(STATE, round=2)),
    ],
)
def test_without_its_own_whole_file_a_charge_is_burned(
    charged: tuple[Ledger, Path], leave: Callable[[Path], None]
) -> None:
    ledger, folder = charged
    leave(folder)
    checkpoints_in(folder).recover(ledger, Disk())
    assert ledger.last_release is None
    assert ledger.open_charge is None
    assert ledger.num_charges == 1
    assert ledger.charge(2) == Charge(2, 1)
    assert list(folder.glob("*.tmp")) == []


def test_recovery_without_an_open_charge_writes_nothing(charged: tuple[Ledger, Path]) -> None:
    ledger, folder = charged
    checkpoints_in(folder).recover(ledger, Disk())
    head = ledger.head
    checkpoints_in(folder).recover(ledger, Disk())
    assert ledger.head == head


# Disks that fail


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_failed_write_is_a_disk_error_and_leaves_no_torn_file(
    tmp_path: Path, fails_at: int, error: int
) -> None:
    with pytest.raises(DiskError):
        write_checkpoint(tmp_path, CHECKPOINT, FailingDisk(fails_at, error))
    path = tmp_path / PATH
    assert path.exists() == (fails_at == 3)  # its name was there already
    if path.exists():
        assert_same(parsed(path.read_bytes()), CHECKPOINT)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_failed_sync_keeps_recovery_from_releasing(
    charged: tuple[Ledger, Path], fails_at: int, error: int
) -> None:
    ledger, folder = charged
    digest = write_checkpoint(folder, CHECKPOINT, Disk())
    with pytest.raises(DiskError):
        checkpoints_in(folder).recover(ledger, FailingDisk(fails_at, error))
    assert ledger.open_charge == Charge(1, 1)
    checkpoints_in(folder).recover(ledger, Disk())
    assert ledger.last_release == Release(1, 1, digest, repr(STATE.clipping_norm))


def test_a_checkpoint_that_cannot_be_read_is_neither_adopted_nor_burned(
    charged: tuple[Ledger, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, folder = charged
    write_checkpoint(folder, CHECKPOINT, Disk())

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DiskError):
        checkpoints_in(folder).recover(ledger, Disk())
    assert ledger.open_charge == Charge(1, 1)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_run_on_a_failing_disk_stops_and_goes_on_as_if_only_a_burned_round_was_missing(
    error: int,
) -> None:
    plan = small_plan(seed=7, num_rounds=5)
    counter = FailingDisk()
    ends: dict[frozenset[int], set[bytes]] = defaultdict(set)
    with quick_folder() as folder:
        ends[frozenset()].add(
            live(create(folder / "run", plan), plan, disk=counter).adapter.tobytes()
        )
    assert counter.names.count("remove") == 2
    for fails_at in range(1, len(counter.names) + 1):
        with quick_folder() as folder:
            run_path = create(folder / "run", plan)
            with pytest.raises(DiskError):
                live(run_path, plan, disk=FailingDisk(fails_at, error))
            state = live(run_path, plan)
            history = Ledger.read(run_path / "ledger.sqlite")
            assert len(history.charges) == plan.num_rounds
            is_burned = counter.names[fails_at - 1] in ("write", "rename")
            assert len(history.releases) == plan.num_rounds - is_burned
            burned = set(range(1, 6)) - {release.round for release in history.releases}
            ends[frozenset(burned)].add(state.adapter.tobytes())
    assert len(ends) == 1 + plan.num_rounds
    assert all(len(adapters) == 1 for adapters in ends.values())

"""Power cuts at every step of a run: what was promised to the disk is what the disk keeps.

A killed process loses nothing that it has written, so kills alone never show a missing sync.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_run
from crash_disk import OutsideLog
from crash_rules import RuleBrokenError, quick_folder
from power_machine import PowerTrial
from power_medium import HAS_APSW, Medium
from small_ledger import small_plan

from feddp.common.disk import Disk
from feddp.common.privacy.ledger import store
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.server.checkpoint import Checkpoints

SEED = 7
DEFAULT_TRIALS = 60
needs_apsw = pytest.mark.skipif(not HAS_APSW, reason="only apsw shows the calls of SQLite")


@pytest.fixture(scope="module")
def num_steps() -> int:
    with quick_folder() as folder:
        trial = PowerTrial(folder)
        trial.survive()
        return int(trial.log.lines("steps")[0][0])


# The model of the disk


def cut(folder: Path, medium: Medium, seed: int) -> dict[str, bytes]:
    """The files of a folder after a power cut."""
    medium.lose_power(np.random.default_rng(seed))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def outcomes(change: Callable[[Path, Medium], None]) -> set[tuple[tuple[str, bytes], ...]]:
    """All that a power cut makes of a change of a folder with one durable file, "old"."""
    found = set()
    for seed in range(40):
        with quick_folder() as folder:
            (folder / "old").write_bytes(b"old")
            medium = Medium.durable(folder)
            change(folder, medium)
            found.add(tuple(sorted(cut(folder, medium, seed).items())))
    return found


def test_a_power_cut_may_undo_spoil_or_keep_what_was_not_synced() -> None:
    def write(folder: Path, medium: Medium) -> None:
        (folder / "old").write_bytes(b"new")

    assert outcomes(write) == {(("old", content),) for content in (b"old", b"new")}

    def create(folder: Path, medium: Medium) -> None:
        (folder / "new").write_bytes(b"new")
        medium.created(str(folder / "new"))

    old = ("old", b"old")
    spoiled = {b"", b"new", bytes(3)}
    assert outcomes(create) == {(old,)} | {(("new", content), old) for content in spoiled}


def test_a_power_cut_may_bring_a_renamed_or_deleted_file_back() -> None:
    def rename(folder: Path, medium: Medium) -> None:
        medium.rename(str(folder / "old"), str(folder / "new"))

    assert outcomes(rename) == {(("old", b"old"),), (("new", b"old"),)}
    assert outcomes(lambda folder, medium: medium.delete(str(folder / "old"))) == {
        (("old", b"old"),),
        (),
    }


def test_what_was_synced_survives_a_power_cut() -> None:
    def replace(folder: Path, medium: Medium) -> None:
        (folder / "new").write_bytes(b"new")
        medium.created(str(folder / "new"))
        medium.synced(str(folder / "new"))
        medium.rename(str(folder / "new"), str(folder / "old"))
        medium.synced(str(folder))

    assert outcomes(replace) == {(("old", b"new"),)}


# The run


def test_a_run_with_power_cuts_and_kills_at_any_step_keeps_every_rule(num_steps: int) -> None:
    rng = np.random.default_rng(0)
    for step in range(1, num_steps + 1, -(-num_steps // DEFAULT_TRIALS)):
        with quick_folder() as folder:
            trial = PowerTrial(folder, power=0.5, rng=rng)
            trial.survive(step, int(rng.integers(1, num_steps)))
            assert trial.num_crashes >= 1


def test_a_seeded_run_with_power_cuts_ends_like_the_others_that_burned_the_same_rounds(
    num_steps: int,
) -> None:
    plan = small_plan(seed=SEED)
    adapters: dict[frozenset[int], set[bytes]] = defaultdict(set)
    for step in (None, *range(1, num_steps + 1, -(-num_steps // 20))):
        with quick_folder() as folder:
            trial = PowerTrial(folder, plan)
            trial.survive(*([] if step is None else [step]))
            adapters[trial.burned].add(trial.final_adapter())
    assert len(adapters) > 1
    assert all(len(found) == 1 for found in adapters.values())


@pytest.mark.slow
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_runs_with_many_power_cuts_keep_every_rule(num_steps: int, power: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(3):
        for step in range(1, num_steps + 1):
            with quick_folder() as folder:
                trial = PowerTrial(folder, power=power, rng=rng)
                trial.survive(step, *rng.integers(1, num_steps, int(rng.integers(1, 7))).tolist())


# Broken code


def no_mutation(log: OutsideLog) -> None:
    """The control."""


def write_without_sync(log: OutsideLog) -> None:
    def write(disk: Disk, path: Path, content: bytes, mode: int) -> None:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
        while content:
            content = content[os.write(descriptor, content) :]
        os.close(descriptor)

    Disk.write = write  # type: ignore[method-assign]


def rename_without_sync(log: OutsideLog) -> None:
    Disk.fsync_folder = lambda disk, path: None  # type: ignore[method-assign]


def adopt_without_sync(log: OutsideLog) -> None:
    class Careless(Disk):
        def fsync(self, path: Path) -> None: ...
        def fsync_folder(self, path: Path) -> None: ...

    def adopt(ledger: Ledger, checkpoints: Checkpoints, disk: Disk) -> None:
        checkpoints.recover(ledger, Careless())

    small_run.recover = adopt


def with_pragmas(*pragmas: tuple[str, str, str | int]) -> Callable[[OutsideLog], None]:
    def mutate(log: OutsideLog) -> None:
        store.PRAGMAS = pragmas  # type: ignore[assignment]

    return mutate


DELETE = ("journal_mode", "DELETE", "delete")
WAL = ("journal_mode", "WAL", "wal")
IN_PROCESS = ("locking_mode", "EXCLUSIVE", "exclusive")  # no shared memory, which nobody watches
sync_off = with_pragmas(DELETE, ("synchronous", "OFF", 0))
sync_full = with_pragmas(DELETE, ("synchronous", "FULL", 2))
log_normal = with_pragmas(IN_PROCESS, WAL, ("synchronous", "NORMAL", 1))
log_full = with_pragmas(IN_PROCESS, WAL, ("synchronous", "FULL", 2))


def broken_rule(live: Callable[..., object], *steps: int) -> str | None:
    """The rule that is broken after these deaths; None when all are kept."""
    try:
        live(*steps)
    except RuleBrokenError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("mutate", "breaks"),
    [
        pytest.param(write_without_sync, "has another file", id="checkpoint not synced"),
        pytest.param(rename_without_sync, "is missing", id="its name not synced"),
        pytest.param(sync_off, "does not verify", marks=needs_apsw, id="synchronous OFF"),
        pytest.param(sync_full, "commit was lost", marks=needs_apsw, id="synchronous FULL"),
        pytest.param(log_normal, "commit was lost", marks=needs_apsw, id="WAL, NORMAL"),
    ],
)
def test_the_rules_catch_a_missing_sync(
    mutate: Callable[[OutsideLog], None], breaks: str, num_steps: int
) -> None:
    rng, broken = np.random.default_rng(0), None
    for step in range(1, num_steps + 1):
        with quick_folder() as folder:
            broken = broken_rule(PowerTrial(folder, mutate=mutate, rng=rng).survive, step)
        if broken:
            break
    assert broken is not None
    assert breaks in broken


@needs_apsw
def test_a_write_ahead_log_would_need_full_syncs_and_then_keeps_every_rule(num_steps: int) -> None:
    rng = np.random.default_rng(0)
    for step in range(1, num_steps + 1, -(-num_steps // 40)):
        with quick_folder() as folder:
            PowerTrial(folder, mutate=log_full, rng=rng).survive(step)


def step_before_the_release_row() -> int:
    """A step after which a killed process leaves a finished checkpoint to an open charge."""
    for step in range(1, 1000):
        with quick_folder() as folder:
            trial = PowerTrial(folder, power=0.0)
            trial.live_once(step)
            finished = list((trial.run_path / "checkpoints").glob("*.safetensors"))
            if trial.check().open_charge is not None and finished:
                return step
    raise AssertionError("there is no such step")


@pytest.mark.parametrize(
    ("mutate", "is_broken"), [(no_mutation, False), (adopt_without_sync, True)]
)
def test_an_adopted_file_survives_the_power_cut_that_follows(
    mutate: Callable[[OutsideLog], None], is_broken: bool, num_steps: int
) -> None:
    rng = np.random.default_rng(0)
    killed_at, num_lost = step_before_the_release_row(), 0
    for step in range(1, num_steps // 2, -(-num_steps // 60)):
        with quick_folder() as folder:
            trial = PowerTrial(folder, mutate=mutate, rng=rng)
            trial.live_once(killed_at, is_cut=False)
            trial.live_once(step, is_cut=True)
            broken = broken_rule(trial.check)
            assert broken is None or "is missing" in broken
            num_lost += broken is not None
    assert (num_lost > 0) == is_broken

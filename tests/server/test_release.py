"""A released round: what is charged, kept and deleted, and where training stands after it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from small_ledger import DIMENSION, small_plan
from small_run import INITIAL, IntegerNodes, checkpoint_path, create, live, training_of

from feddp.common.disk import Disk
from feddp.common.errors import DiskError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import read_released
from feddp.common.privacy.mechanism.gaussian import NoisedSum
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.ledger_entries import start_of
from feddp.server.release import draw, release, resume_state

SEEDED = small_plan(seed=7)


def test_a_round_is_released_as_its_checkpoint_says(tmp_path: Path) -> None:
    folder = create(tmp_path / "run", SEEDED)
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        ledger.open_run(start_of("small", SEEDED))
        training = training_of(folder, SEEDED, ledger, IntegerNodes(), Disk())
        start = resume_state(training, INITIAL)
        state = release(training, start, UpdateSum.zeros(DIMENSION))
        assert ledger.last_release is not None
        kept = read_released(training.checkpoints, ledger.last_release)
        again = resume_state(training, INITIAL)
    assert (state.round, ledger.last_release.next_clipping_norm) == (1, repr(state.clipping_norm))
    for found in (kept.state, again):
        assert found.adapter.tobytes() == state.adapter.tobytes()
        assert {name: values.tobytes() for name, values in found.moments.items()} == {
            name: values.tobytes() for name, values in state.moments.items()
        }
    path = checkpoint_path(folder / "checkpoints", 1, 1)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == ledger.last_release.sha256


def test_a_sum_that_nodes_have_noised_gets_no_noise_more(tmp_path: Path) -> None:
    folder = create(tmp_path / "run", SEEDED)
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        ledger.open_run(start_of("small", SEEDED))
        training = training_of(folder, SEEDED, ledger, IntegerNodes(), Disk())
        noised = NoisedSum.from_node(np.arange(DIMENSION, dtype=np.int64))
        released, row = draw(training, ledger.charge(1), noised, SEEDED.clipping_norm)
    step = SEEDED.clipping_norm / SEEDED.noise.grid_steps / SEEDED.expected_cohort_size
    np.testing.assert_allclose(released.values, np.arange(DIMENSION) * step)
    assert row is None


def test_a_full_disk_stops_before_anything_is_charged(tmp_path: Path) -> None:
    class Full(Disk):
        def free_bytes(self, path: Path) -> int:
            return 5 * INITIAL.nbytes * 2 - 1

    folder = create(tmp_path / "run", SEEDED)
    with pytest.raises(DiskError, match="Nothing was charged"):
        live(folder, SEEDED, disk=Full())
    assert Ledger.read(folder / "ledger.sqlite").charges == []


def test_a_run_without_releases_starts_from_the_initial_adapter(tmp_path: Path) -> None:
    folder = create(tmp_path / "run", SEEDED)
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        training = training_of(folder, SEEDED, ledger, IntegerNodes(), Disk())
        state = resume_state(training, INITIAL)
    assert state.round == 0
    assert state.adapter is INITIAL
    assert {name: values.tolist() for name, values in state.moments.items()} == {
        "first": [0.0] * DIMENSION,
        "second": [0.0] * DIMENSION,
    }


def test_old_checkpoints_are_deleted_and_the_last_three_kept(tmp_path: Path) -> None:
    plan = small_plan(seed=7, num_rounds=5)
    folder = create(tmp_path / "run", plan)
    live(folder, plan)
    kept = {checkpoint_path(folder / "checkpoints", round, 1) for round in (3, 4, 5)}
    assert set((folder / "checkpoints").iterdir()) == kept

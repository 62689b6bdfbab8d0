"""SIGKILL at every step of a run: nothing is spent unseen, answered twice, or lost."""

import signal
from pathlib import Path

import numpy as np
import pytest
from crash_disk import CrashDisk, OutsideLog
from crash_mutants import MUTANTS, no_mutation
from crash_rules import RuleBrokenError, Trial, quick_folder
from small_ledger import small_plan
from small_run import create, live

from feddp.common.errors import BudgetSpentError
from feddp.common.privacy.ledger.ledger import Ledger

SEED = 7


def count_steps(folder: Path) -> int:
    """How many moments a life of three rounds has."""
    disk = CrashDisk(OutsideLog(folder / "log"))
    live(create(folder / "run", small_plan()), small_plan(), disk=disk)
    return disk.num_steps


@pytest.fixture(scope="module")
def num_steps(tmp_path_factory: pytest.TempPathFactory) -> int:
    return count_steps(tmp_path_factory.mktemp("count"))


@pytest.fixture(scope="module")
def straight() -> bytes:
    return straight_run(spare_attempts=2)


def straight_run(spare_attempts: int) -> bytes:
    """The final adapter of a seeded run that nothing interrupts; its grid depends on the plan."""
    with quick_folder() as folder:
        trial = Trial(folder, small_plan(seed=SEED, spare_attempts=spare_attempts))
        trial.survive()
        return trial.final_adapter()


def test_a_run_has_many_moments_to_die_at(num_steps: int) -> None:
    assert num_steps >= 60


def test_a_seeded_run_killed_at_any_step_ends_like_the_straight_run(
    num_steps: int, straight: bytes
) -> None:
    for step in range(1, num_steps + 1):
        with quick_folder() as folder:
            trial = Trial(folder, small_plan(seed=SEED))
            trial.survive(step)
            assert trial.num_crashes == 1
            assert trial.final_adapter() == straight


def test_a_run_killed_at_any_step_and_again_keeps_every_rule(num_steps: int) -> None:
    rng = np.random.default_rng(0)
    for step in range(1, num_steps + 1):
        with quick_folder() as folder:
            Trial(folder).survive(step, int(rng.integers(1, num_steps)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_run_killed_at_every_step_under_a_hundred_seeds_keeps_every_rule(
    seed: int, num_steps: int
) -> None:
    rng = np.random.default_rng(1000 + seed)
    assert num_steps >= 33
    for step in range(1, num_steps + 1):
        with quick_folder() as folder:
            Trial(folder).survive(step, int(rng.integers(1, num_steps)))


@pytest.mark.slow
def test_runs_killed_many_times_keep_every_rule_and_end_like_the_straight_run(
    num_steps: int,
) -> None:
    rng, straight = np.random.default_rng(1), straight_run(spare_attempts=8)
    for trial_number in range(600):
        seed = SEED if trial_number % 2 else None
        steps = rng.integers(1, num_steps, int(rng.integers(1, 9))).tolist()
        with quick_folder() as folder:
            trial = Trial(folder, small_plan(seed=seed, spare_attempts=8))
            trial.survive(*steps)
            assert seed is None or trial.final_adapter() == straight


def test_a_crash_before_the_charge_is_free_and_one_after_the_draw_burns_one(
    num_steps: int,
) -> None:
    spent = []
    for step in range(1, num_steps + 1):
        with quick_folder() as folder:
            spent.append(len(Trial(folder).survive(step).charges))
    assert set(spent) == {3, 4}


def test_crashes_beyond_the_spare_attempts_end_the_run_within_its_promise() -> None:
    with quick_folder() as folder:
        trial = Trial(folder, small_plan(spare_attempts=0))
        assert trial.live_once(step_of(folder, "after CHARGE")) == -signal.SIGKILL
        assert trial.live_once(None) == BudgetSpentError.exit_code
        assert len(trial.check().charges) == 3
        assert len(Ledger.read(trial.run_path / "ledger.sqlite").releases) == 2


def step_of(folder: Path, name: str) -> int:
    """The first step of that name."""
    names: list[str] = []

    class Recorder(CrashDisk):
        def step(self, name: str) -> None:
            names.append(name)

    disk = Recorder(OutsideLog(folder / "log of names"))
    live(create(folder / "recorded", small_plan()), small_plan(), disk=disk)
    return 1 + names.index(name)


def test_the_round_that_mutants_are_made_of_keeps_every_rule(
    num_steps: int, straight: bytes
) -> None:
    for step in range(1, num_steps + 1, 2):
        with quick_folder() as folder:
            trial = Trial(folder, small_plan(seed=SEED), no_mutation)
            trial.survive(step)
            assert trial.final_adapter() == straight


@pytest.mark.parametrize("name", MUTANTS)
def test_the_rules_catch_broken_code(name: str, num_steps: int, straight: bytes) -> None:
    mutant = MUTANTS[name]
    broken = None
    for step in range(1, num_steps + 1):
        with quick_folder() as folder:
            plan = small_plan(seed=SEED if mutant.is_seeded else None, spare_attempts=mutant.spare)
            trial = Trial(folder, plan, mutant.mutate)
            try:
                trial.survive(step)
                if mutant.is_seeded and trial.final_adapter() != straight:
                    raise RuleBrokenError("another final adapter")
            except RuleBrokenError as error:
                broken = str(error)
                break
    assert broken is not None
    assert mutant.breaks in broken

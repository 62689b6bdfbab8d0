"""SIGKILL at every step of a run: nothing is spent unseen, answered twice, or lost."""

import functools
import shutil
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
from feddp.common.privacy.plan.ledger_entries import start_of

SEED = 7


def count_steps(folder: Path) -> int:
    """How many moments a life of three rounds has."""
    disk = CrashDisk(OutsideLog(folder / "log"))
    live(create(folder / "run", small_plan()), small_plan(), disk=disk)
    return disk.num_steps


@pytest.fixture(scope="module")
def num_steps(tmp_path_factory: pytest.TempPathFactory) -> int:
    return count_steps(tmp_path_factory.mktemp("count"))


@functools.cache
def straight_run(burned: frozenset[int] = frozenset()) -> bytes:
    """The final adapter of a seeded run that nothing interrupts; its operator burns rounds."""
    plan = small_plan(seed=SEED)
    with quick_folder() as folder:
        trial = Trial(folder, plan)
        for round in sorted(burned):
            reached: list[int] = []
            live(
                trial.run_path,
                plan,
                on_round=lambda report, reached=reached: reached.append(report.round),
                is_stopped=lambda reached=reached, round=round: (
                    set(range(reached[-1] + 1, round)) <= burned
                ),
            )
            with Ledger.open(trial.run_path / "ledger.sqlite") as ledger:
                ledger.open_run(start_of("small", plan))
                ledger.burn(ledger.charge(round), "operator")
        live(trial.run_path, plan)
        assert trial.burned == burned
        return trial.final_adapter()


def test_a_run_has_many_moments_to_die_at(num_steps: int) -> None:
    assert num_steps >= 60


def test_a_seeded_run_killed_at_any_step_ends_like_the_straight_run_without_a_burned_round(
    num_steps: int,
) -> None:
    burned = set()
    for step in range(1, num_steps + 1):
        with quick_folder() as folder:
            trial = Trial(folder, small_plan(seed=SEED))
            trial.survive(step)
            assert trial.num_crashes == 1
            assert trial.final_adapter() == straight_run(trial.burned)
            burned.add(trial.burned)
    assert burned == {frozenset(), *(frozenset({round}) for round in (1, 2, 3))}
    assert len({straight_run(rounds) for rounds in burned}) == 4


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
    rng = np.random.default_rng(1)
    for trial_number in range(600):
        seed = SEED if trial_number % 2 else None
        steps = rng.integers(1, num_steps, int(rng.integers(1, 9))).tolist()
        with quick_folder() as folder:
            trial = Trial(folder, small_plan(seed=seed))
            trial.survive(*steps)
            assert seed is None or trial.final_adapter() == straight_run(trial.burned)


def test_a_crash_before_the_charge_is_free_and_one_after_the_draw_burns_one(
    num_steps: int,
) -> None:
    released = []
    for step in range(1, num_steps + 1):
        with quick_folder() as folder:
            history = Trial(folder).survive(step)
            assert len(history.charges) == 3
            released.append(len(history.releases))
    assert set(released) == {2, 3}


def test_crashes_that_burn_every_round_end_the_run_within_its_promise() -> None:
    with quick_folder() as folder:
        trial = Trial(folder)
        for _ in range(3):
            assert trial.live_once(step_of(trial, "after CHARGE")) == -signal.SIGKILL
        history = trial.survive()
        assert (len(history.charges), history.releases) == (3, [])


@pytest.mark.parametrize("spare", [1, 2])
def test_a_plan_of_before_charges_a_burned_round_again_until_its_spare_attempts_are_spent(
    spare: int,
) -> None:
    with quick_folder() as folder:
        trial = Trial(folder, small_plan(spare_attempts=spare))
        for _ in range(spare):
            assert trial.live_once(step_of(trial, "after CHARGE")) == -signal.SIGKILL
        assert trial.survive().charges[spare]["attempt"] == 1 + spare
        assert trial.burned == frozenset()
    with quick_folder() as folder:
        trial = Trial(folder, small_plan(spare_attempts=spare))
        for _ in range(spare):
            assert trial.live_once(step_of(trial, "after CHARGE")) == -signal.SIGKILL
        assert trial.live_once(step_of(trial, "after CHARGE")) == -signal.SIGKILL
        assert trial.live_once(None) == BudgetSpentError.exit_code
        assert len(trial.check().charges) == 3 + spare


def step_of(trial: Trial, name: str) -> int:
    """The first step of that name in a run's next life."""
    names: list[str] = []

    class Recorder(CrashDisk):
        def step(self, name: str) -> None:
            names.append(name)

    disk = Recorder(OutsideLog(trial.folder / "log of names"))
    recorded = trial.folder / "recorded"
    shutil.copytree(trial.run_path, recorded)
    live(recorded, trial.plan, disk=disk)
    shutil.rmtree(recorded)
    return 1 + names.index(name)


def test_the_round_that_mutants_are_made_of_keeps_every_rule(num_steps: int) -> None:
    for step in range(1, num_steps + 1, 2):
        with quick_folder() as folder:
            trial = Trial(folder, small_plan(seed=SEED), no_mutation)
            trial.survive(step)
            assert trial.final_adapter() == straight_run(trial.burned)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_rules_catch_broken_code(name: str, num_steps: int) -> None:
    mutant = MUTANTS[name]
    broken = None
    for step in range(1, num_steps + 1):
        with quick_folder() as folder:
            plan = small_plan(seed=SEED if mutant.is_seeded else None)
            trial = Trial(folder, plan, mutant.mutate)
            try:
                trial.survive(step)
                if mutant.is_seeded and trial.final_adapter() != straight_run(trial.burned):
                    raise RuleBrokenError("another final adapter")
            except RuleBrokenError as error:
                broken = str(error)
                break
    assert broken is not None
    assert mutant.breaks in broken

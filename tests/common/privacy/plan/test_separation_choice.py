"""Separation where coins decide within a turn: the least prefix error of those tried."""

import dataclasses
import math
from typing import Any

import pytest
from flat_plan import flat_plan

from feddp.common.errors import ConfigError
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.schedule import Schedule
from feddp.common.privacy.plan.separation_choice import choose_separation, mean_error

ASKED: dict[str, Any] = {
    "num_users": 3000,
    "target_epsilon": 8.0,
    "target_delta": 1e-5,
    "noise_multiplier": None,
    "clipping_norm": 1.0,
    "num_rounds": 50,
    "expected_cohort_size": 300.0,
    "dimension": 1000,
    "trust": "server",
    "mechanism": "cyclic-poisson",
}


def planned(**changes: Any) -> PrivacyPlan:
    return flat_plan(**ASKED | changes)


def with_separation(schedule: Schedule, separation: int) -> Schedule:
    cohorts = dataclasses.replace(schedule.cohorts, separation=separation)
    return dataclasses.replace(schedule, cohorts=cohorts)


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return planned()


def test_the_errors_are_the_golden_ones(plan: PrivacyPlan) -> None:
    """N = 3000, cohort 300, 50 rounds, epsilon 8; spare attempts made 5.90 of the last one."""
    for separation, golden in ((2, 3.561), (5, 3.297), (10, 3.160)):
        found = mean_error(with_separation(plan.schedule, separation), None)
        assert found == pytest.approx(golden, rel=2e-3)


def test_no_other_separation_errs_less(plan: PrivacyPlan) -> None:
    assert plan.cohorts.separation == 10
    chosen = mean_error(plan.schedule, None)
    for separation in (3, 6, 8):
        assert mean_error(with_separation(plan.schedule, separation), None) >= chosen


def test_coins_are_kept_where_they_are_worth_more() -> None:
    few = planned(expected_cohort_size=150.0, target_epsilon=1.0)
    assert 2 <= few.cohorts.separation < 20
    assert few.sampling_probability < 1
    assert mean_error(few.schedule, None) < mean_error(with_separation(few.schedule, 20), None)


def test_a_given_separation_is_kept() -> None:
    assert planned(separation=4, noise_multiplier=3.0).cohorts.separation == 4


def test_there_are_never_more_rounds_between_turns_than_rounds() -> None:
    plan = planned(expected_cohort_size=30.0, num_rounds=8, noise_multiplier=4.0)
    assert 2 <= plan.cohorts.separation <= 8


def test_under_given_noise_a_separation_that_keeps_the_target_is_chosen() -> None:
    plan = planned(noise_multiplier=1.3)  # ten turns with q = .6 would cost more than 8
    assert plan.epsilon <= 8
    spent = [with_separation(plan.schedule, separation).spent(1.3) for separation in range(2, 11)]
    assert min(spent) < 8 < max(spent)


def test_out_of_reach_everything_stays_and_the_calibration_says_why(plan: PrivacyPlan) -> None:
    hopeless = dataclasses.replace(plan.schedule, target_epsilon=1e-4)
    assert math.isinf(mean_error(hopeless, None))
    assert choose_separation(hopeless, None) == hopeless
    with pytest.raises(ConfigError, match="out of reach"):
        planned(target_epsilon=1e-4)

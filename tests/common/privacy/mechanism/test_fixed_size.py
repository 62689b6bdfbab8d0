"""fixed-size: whole cohorts, drawn in one place."""

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population
from feddp.common.privacy.mechanism.events import FixedSizeGaussianEvent
from feddp.common.privacy.mechanism.fixed_size import FIXED_SIZE

USERS = Population("user", "user", 255, None, None, 1)


def test_a_cohort_is_a_whole_number_by_rule_and_otherwise_refused() -> None:
    assert FIXED_SIZE.arrange(255, None, None) == (25, 1)
    assert "whole number" in FIXED_SIZE.number_problems(Cohorts(USERS, 25.5, 10, 13, 1))[0]
    assert FIXED_SIZE.number_problems(Cohorts(USERS, 25.0, 10, 13, 1)) == []


def test_every_attempt_is_charged_as_sampled_without_replacement() -> None:
    charges = FIXED_SIZE.charges(Cohorts(USERS, 25.0, 10, 13, 1), 2.0)
    assert charges == ((FixedSizeGaussianEvent(255, 25, 2.0), 13),)

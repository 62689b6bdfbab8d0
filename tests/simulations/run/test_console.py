import numpy as np
import pytest
from flat_plan import flat_plan

from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.simulations.run.console import curve_lines, plan_lines, result_lines


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return flat_plan(
        num_users=500,
        target_epsilon=8.0,
        target_delta=None,
        noise_multiplier=2.0,
        clipping_norm=1.0,
        num_rounds=4,
        expected_cohort_size=None,
        dimension=10,
        trust="simulation",
        seed=None,
        details={},
    )


def test_every_derived_number_has_a_reason(plan: PrivacyPlan) -> None:
    lines = plan_lines(plan)
    assert all(len(line.split("   ")) >= 2 and line.split("   ")[-1].strip() for line in lines)


def test_curve_ends_at_the_last_charge(plan: PrivacyPlan) -> None:
    lines = curve_lines(np.linspace(1, 5, 5).tolist(), plan)
    assert lines[-1].split()[:2] == ["5", "5.000"]


def test_table_shows_the_share_of_the_gain_that_was_kept(plan: PrivacyPlan) -> None:
    results = {"base": {"loss": 4.0}, "private": {"loss": 3.0}, "non_private": {"loss": 2.0}}
    text = "\n".join(result_lines(results, plan))
    assert "gain kept: 50 %" in text
    assert "upper bound" in text


def test_table_without_evaluation_users_says_so(plan: PrivacyPlan) -> None:
    assert "nothing to compare" in result_lines({"base": None, "private": None}, plan)[0]

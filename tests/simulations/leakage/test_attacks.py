import doctest
import math

import numpy as np
import pytest

from feddp.simulations.leakage import attacks
from feddp.simulations.leakage.attacks import (
    Interval,
    area_under_curve,
    auc_ceiling,
    difference_interval,
    exposure,
    exposure_ceiling,
    mean_interval,
    proportion,
    run_attack,
    user_inference_scores,
)


def test_docstring_numbers_hold() -> None:
    assert doctest.testmod(attacks).failed == 0


def test_a_score_without_information_is_at_chance() -> None:
    rng = np.random.default_rng(1)
    found = run_attack(rng.normal(size=400), rng.normal(size=300), rng=rng)
    assert found.auc.low < 0.5 < found.auc.high
    assert found.true_positive_rate.low <= 0.01


def test_a_separating_score_is_caught() -> None:
    rng = np.random.default_rng(2)
    found = run_attack(rng.normal(3, 1, size=300), rng.normal(size=300), rng=rng)
    assert found.auc.low > 0.95
    assert found.true_positive_rate.low > 0.4


def test_a_score_with_the_wrong_sign_is_below_chance() -> None:
    rng = np.random.default_rng(3)
    members, non_members = rng.normal(2, 1, size=200), rng.normal(size=200)
    right, wrong = area_under_curve(members, non_members), area_under_curve(non_members, members)
    assert right == pytest.approx(1 - wrong)
    assert wrong < 0.2


def test_bootstrap_interval_covers_the_true_auc_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    shift = 0.5
    truth = 0.5 * (1 + math.erf(shift / 2))  # P[N(shift, 1) > N(0, 1)]
    hits = 0
    for _ in range(60):
        found = run_attack(
            rng.normal(shift, 1, size=120), rng.normal(size=120), rng=rng, num_resamples=200
        )
        hits += found.auc.low <= truth <= found.auc.high
    assert 50 <= hits <= 60


def test_few_non_members_leave_their_largest_as_threshold() -> None:
    rng = np.random.default_rng(0)
    found = run_attack(np.array([2.0, 0.5]), np.array([1.0, 0.0]), rng=rng)
    assert found.true_positive_rate.value == 0.5


def test_exposure_without_memorisation_has_its_known_mean() -> None:
    values = [exposure(rank, 4096) for rank in range(1, 4097)]
    assert np.mean(values) == pytest.approx(1 / math.log(2), abs=0.01)


def test_ceilings_hold_for_randomised_response() -> None:
    # The tightest pure mechanism: AUC of one answer is (1 + advantage) / 2.
    for epsilon in (0.5, 1.0, 3.0):
        advantage = (math.exp(epsilon) - 1) / (math.exp(epsilon) + 1)
        assert (1 + advantage) / 2 <= auc_ceiling(epsilon, 0) + 1e-12
        assert attacks.advantage_ceiling(epsilon, 0) == pytest.approx(advantage)


def test_ceilings_grow_with_epsilon_and_never_pass_one() -> None:
    grid = np.linspace(0, 12, 50)
    for ceiling in (
        lambda e: auc_ceiling(e, 1e-5),
        lambda e: attacks.true_positive_rate_ceiling(e, 1e-5),
        lambda e: exposure_ceiling(10, e, 1e-5),
    ):
        values = [ceiling(e) for e in grid]
        assert values == sorted(values)
        assert values[-1] <= 1


def test_user_inference_compares_with_the_base() -> None:
    scores = user_inference_scores(
        [np.array([1.0, 2.0]), np.array([3.0])], [np.array([2.0, 4.0]), np.array([3.0])]
    )
    assert scores.tolist() == [1.5, 0.0]


def test_intervals_of_proportions_and_means() -> None:
    assert proportion(0, 10).low == 0
    assert proportion(10, 10).high == 1
    assert mean_interval(np.array([1.0])).high == math.inf
    three = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert (three.value, three.high) == (2.0, pytest.approx(2 + 4.302653 / math.sqrt(3)))
    same = difference_interval(np.ones(3), np.zeros(4))
    assert same == Interval(1.0, 1.0, 1.0)

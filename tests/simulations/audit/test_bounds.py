import doctest

import numpy as np
import pytest

from feddp.simulations.audit import bounds as audit
from feddp.simulations.audit.bounds import (
    audit_scores,
    clopper_pearson_bound,
    f_dp_bound,
    gaussian_pair_epsilon,
    normal_bound,
    one_run_bound,
    one_run_p_value,
    one_shot_epsilon,
    separation_of,
    threshold_bound,
)


def test_docstring_numbers_hold() -> None:
    assert doctest.testmod(audit).failed == 0


@pytest.mark.parametrize(
    ("counts", "one_run", "f_dp"),
    [
        ((1000, 1000, 600), 0.2972, 0.5835),
        ((1000, 200, 160), 1.0850, 1.7292),
        ((1000, 100, 100), 3.4654, 5.5490),
        ((5000, 500, 400), 1.1952, 1.6832),
        ((200, 200, 130), 0.3662, 0.7936),
    ],
)
def test_golden_bounds_of_one_run(
    counts: tuple[int, int, int], one_run: float, f_dp: float
) -> None:
    assert one_run_bound(*counts, delta=1e-5, alpha=0.05) == pytest.approx(one_run, abs=1e-4)
    assert f_dp_bound(*counts, delta=1e-5, alpha=0.05) == pytest.approx(f_dp, abs=1e-4)


def test_golden_p_values_of_one_run() -> None:
    assert one_run_p_value(100, 100, 75, 0.5, 0.0) == pytest.approx(4.804739e-3, rel=1e-6)
    assert one_run_p_value(100, 100, 75, 0.5, 1e-5) == pytest.approx(4.902564e-3, rel=1e-6)


@pytest.mark.parametrize(("num", "cap"), [(100, 3.281), (500, 4.906), (1000, 5.601), (5000, 7.212)])
def test_golden_caps_at_perfect_separation(num: int, cap: float) -> None:
    found = clopper_pearson_bound(num, num, 0, num, delta=0.0, alpha=0.05)
    assert found == pytest.approx(cap, abs=1e-3)


@pytest.mark.parametrize(
    ("mean", "spread", "delta", "epsilon"),
    [
        (1, 1, 1e-5, 4.37718),
        (1, 0.9, 1e-5, 7.35779),
        (1, 1.2, 1e-5, 8.81762),
        (4, 1, 1e-5, 24.38161),
        (4, 1.5, 1e-6, 49.39839),
    ],
)
def test_golden_epsilon_between_two_normals(
    mean: float, spread: float, delta: float, epsilon: float
) -> None:
    assert gaussian_pair_epsilon(mean, spread, delta) == pytest.approx(epsilon, abs=1e-5)


def test_equal_normals_are_perfectly_private() -> None:
    assert gaussian_pair_epsilon(0.0, 1.0, 1e-5) == 0.0


def test_bounds_stay_below_the_truth_and_see_half_of_it_missing() -> None:
    # Ideal scores: two unit normals. Alpha 1e-3, so that 40 trials of a valid bound all hold.
    rng = np.random.default_rng(7)
    truth = 2.0
    separation = separation_of(truth, 1e-5)
    for _ in range(10):
        absent = rng.normal(size=500)
        kept = audit_scores(
            rng.normal(separation, 1, size=500), absent, delta=1e-5, alpha=1e-3, is_gaussian=True
        )
        assert kept.lower_bound <= truth
        half_noise = rng.normal(2 * separation, 1, size=500)
        assert normal_bound(half_noise, absent, delta=1e-5, alpha=1e-3) > truth


def test_scores_without_signal_give_bounds_of_zero() -> None:
    rng = np.random.default_rng(8)
    found = audit_scores(
        rng.normal(size=300), rng.normal(size=300), delta=1e-5, alpha=1e-3, is_gaussian=True
    )
    assert found.lower_bound == 0


def test_perfect_separation_reaches_the_caps() -> None:
    rng = np.random.default_rng(9)
    present, absent = 1000 + rng.normal(size=500), rng.normal(size=500)
    assert threshold_bound(present, absent, delta=1e-5, alpha=0.05) > 4
    assert one_shot_epsilon(present, absent, delta=1e-5) > 50
    assert normal_bound(present, absent, delta=1e-5, alpha=0.05) > 50


def test_bounds_of_gaussian_form_are_left_out_where_the_claim_is_another() -> None:
    rng = np.random.default_rng(10)
    found = audit_scores(
        rng.normal(3, 1, size=100), rng.normal(size=100), delta=1e-5, alpha=0.05, is_gaussian=False
    )
    assert found.f_dp is None
    assert found.normal is None
    assert found.lower_bound > 0


def test_normal_bound_covers_at_its_confidence() -> None:
    rng = np.random.default_rng(11)
    truth = gaussian_pair_epsilon(0.6, 1.0, 1e-5)
    misses = 0
    for _ in range(100):
        bound = normal_bound(
            rng.normal(0.6, 1, size=60), rng.normal(size=60), delta=1e-5, alpha=0.05
        )
        misses += bound > truth
    assert misses <= 12  # 5 expected; P[more than 12] < 1e-3
    assert misses >= 1


def test_one_shot_is_near_the_truth_on_ideal_scores() -> None:
    rng = np.random.default_rng(12)
    separation = separation_of(3.0, 1e-6)
    found = one_shot_epsilon(
        rng.normal(separation, 1, size=5000), rng.normal(size=5000), delta=1e-6
    )
    assert found == pytest.approx(3.0, abs=0.6)

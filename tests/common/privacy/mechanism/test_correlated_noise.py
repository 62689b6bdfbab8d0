"""Correlated noise: the right covariance, and prefix sums that gain what was predicted."""

import dataclasses
import math

import numpy as np
import pytest
from correlated_runs import MECHANISM, P_THRESHOLD, ROOT, run
from scipy import linalg, stats

from feddp.common.privacy.accounting.bridge import bridge_delta
from feddp.common.privacy.accounting.epsilon import epsilon
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    PoissonGaussianEvent,
)
from feddp.common.privacy.mechanism.participation import FixedSeparation
from feddp.common.privacy.mechanism.toeplitz import (
    best_banded,
    best_blt,
    prefix_error,
    quantise,
    sensitivity,
)

SMALL = dataclasses.replace(
    MECHANISM,
    num_rounds=6,
    coefficients=ROOT[:6],
    num_spare=0,
    participation=FixedSeparation(2, 3),
    dimension=120_000,
)


@pytest.fixture(scope="module")
def correlated_noise():
    """Noise of six rows without users, in units of z * C / divisor; shape (6, 120,000)."""
    zeros = np.zeros((6, SMALL.dimension), dtype=np.int64)
    released, _, _ = run(SMALL, zeros)
    return released / (SMALL.noise_multiplier * SMALL.clipping_norm / SMALL.expected_cohort_size)


def covariance_p_value(noise, coefficients, norm):
    """Whether the rows of noise have the covariance norm^2 (C^T C)^-1.

    C noise / norm must have unit covariance. Its diagonal times the number of draws is chi-square;
    correlations are normal with standard deviation 1 / sqrt(draws). Two-sided, Bonferroni.
    """
    draws = noise.shape[1]
    white = np.tril(linalg.toeplitz(coefficients)) @ noise / norm
    squares = np.sum(white**2, axis=1)
    diagonal = 2 * np.minimum(stats.chi2.sf(squares, draws), stats.chi2.cdf(squares, draws))
    pairs = (white @ white.T)[np.triu_indices(len(white), 1)] / math.sqrt(draws)
    p_values = np.concatenate([diagonal, 2 * stats.norm.sf(np.abs(pairs))])
    return float(min(1.0, p_values.min() * len(p_values)))


TRUE = np.array(ROOT[:6]) / 256
NORM = sensitivity(TRUE, separation=2, max_participations=3)


def test_noise_has_the_covariance_of_the_matrix(correlated_noise):
    assert covariance_p_value(correlated_noise, TRUE, NORM) > P_THRESHOLD
    empirical = np.cov(correlated_noise)
    matrix = np.tril(linalg.toeplitz(TRUE))
    exact = NORM**2 * np.linalg.inv(matrix.T @ matrix)
    np.testing.assert_allclose(empirical, exact, atol=0.02 * exact.max())


# A standard deviation of 120,000 draws is known to 0.2 %, a correlation to 0.003.
@pytest.mark.parametrize("wrong", range(1, 6))
def test_a_wrong_coefficient_is_rejected(correlated_noise, wrong):
    mutant = TRUE.copy()
    mutant[wrong] += 0.02
    assert covariance_p_value(correlated_noise, mutant, NORM) < P_THRESHOLD


@pytest.mark.parametrize("factor", [2 / 3, 0.99, 1.01, 3 / 2])
def test_a_wrong_scale_is_rejected(correlated_noise, factor):
    assert covariance_p_value(correlated_noise, TRUE, NORM * factor) < P_THRESHOLD


def test_the_sensitivity_of_one_participation_is_rejected(correlated_noise):
    one = sensitivity(TRUE, separation=2, max_participations=1)
    assert covariance_p_value(correlated_noise, TRUE, one) < P_THRESHOLD


def test_independent_noise_is_rejected(correlated_noise):
    assert covariance_p_value(correlated_noise, np.eye(6)[0], NORM) < P_THRESHOLD


def test_discrete_noise_costs_next_to_nothing():
    added = bridge_delta(num_charges=1000, dimension=10**6, noise_scale=1 << 28, epsilon=8.0)
    assert added < 1e-10
    assert dataclasses.replace(MECHANISM, noise_multiplier=1.0).noise_scale > 1 << 28
    assert MECHANISM.num_charges == 14


def test_noise_norm_is_that_of_the_last_released_update():
    mechanism = dataclasses.replace(MECHANISM, dimension=20_000)
    released, _, _ = run(mechanism, np.zeros((12, 20_000), dtype=np.int64))
    assert np.linalg.norm(released[-1]) == pytest.approx(mechanism.noise_norm, rel=0.03)
    assert np.linalg.norm(released[0]) < mechanism.noise_norm


@pytest.mark.parametrize("kind", ["banded", "blt"])
def test_prefix_sums_beat_independent_noise_by_the_predicted_factor(kind):
    rounds, users, run_of = 48, 40, {"separation": 8, "max_participations": 6}
    if kind == "banded":
        best = best_banded(num_rows=rounds, num_bands=8, **run_of)
    else:
        best = best_blt(num_rows=rounds, num_buffers=2, **run_of).coefficients(rounds)
    alone = np.eye(rounds)[0]
    rng = np.random.default_rng(11)
    points = rng.integers(-(1 << 12), 1 << 12, (users, 2000))
    sums = np.array([points[np.arange(users) % 8 == row % 8].sum(axis=0) for row in range(rounds)])
    measured, predicted = [], []
    for coefficients in (best, alone):
        mechanism = dataclasses.replace(
            MECHANISM,
            num_units=users,
            expected_cohort_size=5.0,
            dimension=2000,
            num_spare=0,
            num_rounds=rounds,
            coefficients=quantise(coefficients, shift=8),
            participation=FixedSeparation(8, 6),
        )
        unit = 0.5 / (1 << 20) / 5
        error = np.cumsum(run(mechanism, sums)[0], axis=0) - np.cumsum(sums, axis=0) * unit
        measured.append(math.sqrt(np.mean(error**2)) / (1.3 * 0.5 / 5))
        predicted.append(prefix_error(coefficients, **run_of).mean)
    assert measured == pytest.approx(predicted, rel=0.03)
    assert measured[1] > 1.9 * measured[0]


def test_cyclic_bands_reach_the_table_at_their_calibrated_noise():
    # N = 10,000, cohorts of 100, 1000 rounds, 32 bands, epsilon 8, delta 1e-6: 7.2 per clip.
    charges = [(PoissonGaussianEvent(0.32, 1.4672), 32)]
    assert 7.99 < epsilon(charges, delta=1e-6, relation=ADD_OR_REMOVE_ONE) <= 8
    best = best_banded(num_rows=1000, num_bands=32, separation=32, max_participations=1)
    error = prefix_error(best, separation=32, max_participations=1)
    assert 1.4672 * error.mean == pytest.approx(7.2, rel=5e-3)

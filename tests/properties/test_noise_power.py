"""The noise of whole releases: scale, tails and independence, each with what it would detect."""

import dataclasses

import numpy as np
import pytest
from noise_statistics import (
    independence_p_value,
    largest_correlation_p_value,
    scale_p_value,
    tail_p_value,
)

from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise import BitStream, seeded_key
from feddp.common.privacy.mechanism.sampling import PoissonSampler
from feddp.common.privacy.mechanism.summation import UpdateSum

P_THRESHOLD = 1e-3
SIZE = 1_000_000
MECHANISM = GaussianMechanism(
    sampler=PoissonSampler(0.05),
    num_units=1000,
    expected_cohort_size=50.0,
    clipping_norm=0.5,
    noise_multiplier=1.3,
    grid_steps=1 << 20,
    dimension=SIZE,
)
STD = 1.3 * 0.5 / 50  # z C / (q N)


def release_of_nothing(mechanism: GaussianMechanism, *, seed: int, round: int = 1) -> np.ndarray:
    bits = BitStream(seeded_key(seed, round))
    return mechanism.release(UpdateSum.zeros(mechanism.dimension), bits=bits).values


@pytest.fixture(scope="module")
def released() -> np.ndarray:
    return release_of_nothing(MECHANISM, seed=1)


# Relative standard error of the scale: (2e6)^(-1/2) = 0.071 %. At this threshold a deficit of
# 0.5 % (7.1 standard errors) is missed once in 1e4, one of 1 % never.
def test_a_release_has_exactly_the_promised_noise(released):
    assert scale_p_value(released, STD) > P_THRESHOLD


@pytest.mark.parametrize("factor", [2 / 3, 0.99, 0.995, 1.005, 1.01, 3 / 2])
def test_noise_that_is_half_a_percent_off_is_rejected(factor):
    mechanism = dataclasses.replace(MECHANISM, noise_multiplier=1.3 * factor)
    assert scale_p_value(release_of_nothing(mechanism, seed=1), STD) < P_THRESHOLD


# Expected beyond 3, 4 and 4.5 standard deviations: 2700, 63 and 6.8 of 1e6.
@pytest.mark.parametrize("beyond", [3.0, 4.0, 4.5])
def test_tails_are_as_heavy_as_a_normals_and_no_heavier(released, beyond):
    assert tail_p_value(released, STD, beyond) > P_THRESHOLD


def test_tails_of_a_sum_of_uniforms_are_rejected():
    """Twelve uniforms have the right variance and too few draws beyond 4: a sampler by the central
    limit theorem would be seen."""
    rng = np.random.default_rng(0)
    draws = rng.random((SIZE, 12), dtype=np.float32).sum(axis=1) - 6
    assert tail_p_value(draws, 1.0, 4.0) < P_THRESHOLD


def test_tails_of_a_mixture_of_scales_are_rejected(released):
    factor = np.where(np.arange(SIZE) % 2, 0.8, np.sqrt(2 - 0.8**2))
    assert scale_p_value(released * factor, STD) > P_THRESHOLD / 10  # the same variance
    assert tail_p_value(released * factor, STD, 4.0) < P_THRESHOLD


ROUNDS, COORDINATES = 400, 64


@pytest.fixture(scope="module")
def rounds() -> np.ndarray:
    """Releases of nothing, (rounds, coordinates)."""
    small = dataclasses.replace(MECHANISM, dimension=COORDINATES)
    return np.stack([release_of_nothing(small, seed=2, round=r) for r in range(ROUNDS)])


# A correlation of 0.03 between all coordinates adds 400 * 0.03^2 * 2016 = 726 to a statistic of
# mean 2016 and standard deviation 63.5; one pair is seen from 0.3 on.
def test_coordinates_are_independent_over_rounds(rounds):
    assert independence_p_value(rounds) > P_THRESHOLD
    assert largest_correlation_p_value(rounds) > P_THRESHOLD


def test_rounds_are_independent_over_coordinates(rounds):
    assert independence_p_value(rounds[:40].T) > P_THRESHOLD
    assert largest_correlation_p_value(rounds.T) > P_THRESHOLD


def test_a_common_part_of_all_coordinates_is_rejected(rounds):
    common = rounds[:, :1] * 0.18  # a correlation of 0.03 between all pairs
    assert independence_p_value(rounds[:, 1:] + common) < P_THRESHOLD


def test_a_round_whose_noise_is_reused_is_rejected(rounds):
    again = rounds.copy()
    again[300] = rounds[17] + 1e-3 * rounds[18]
    assert largest_correlation_p_value(again.T) < P_THRESHOLD

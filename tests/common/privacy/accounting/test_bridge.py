"""The bridge of the discrete noise: golden values, exact distances, rounding toward privacy."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.bridge import (
    MAX_GRID_STEPS,
    MIN_GRID_STEPS,
    bridge_cost,
    bridge_delta,
    choose_grid_steps,
    ratio_bridge,
)
from feddp.common.privacy.mechanism.noise import MAX_SCALE, BitStream, discrete_gaussian

# Extra delta at rounds * dimension = 1e9, for epsilon 1, 2, 4, 8.
BRIDGE = [
    (1 << 20, (3.2e-9, 7.1e-9, 4.7e-8, 2.5e-6)),
    (1 << 22, (2.0e-10, 4.4e-10, 2.9e-9, 1.6e-7)),
    (1 << 24, (1.2e-11, 2.8e-11, 1.8e-10, 9.9e-9)),
    (1 << 26, (7.7e-13, 1.7e-12, 1.2e-11, 6.2e-10)),
]


@pytest.mark.parametrize(("scale", "golden"), BRIDGE)
def test_bridge_term_has_its_golden_values(scale, golden):
    for target, value in zip((1.0, 2.0, 4.0, 8.0), golden, strict=True):
        bridge = bridge_delta(
            num_charges=1000, dimension=1_000_000, noise_scale=scale, epsilon=target
        )
        assert bridge == pytest.approx(value, rel=0.05)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_bridge_covers_the_real_distance_of_discrete_and_rounded_noise(scale):
    """KL and total variation of one coordinate, summed term by term, stay below the formula."""
    integers = np.arange(-12 * scale, 12 * scale + 1)
    weights = np.exp(-(integers**2) / (2 * scale**2))
    discrete = weights / weights.sum()
    # From the tail's side, so that small differences of the two distribution functions are exact.
    distance = np.abs(integers)
    rounded = norm.sf((distance - 0.5) / scale) - norm.sf((distance + 0.5) / scale)
    divergence = float(np.sum(discrete * np.log(discrete / rounded)))
    variation = 0.5 * float(np.sum(np.abs(discrete - rounded)))
    assert 0.9 / (576 * scale**4) < divergence <= 1 / (576 * scale**4)
    allowed = bridge_delta(num_charges=1, dimension=1, noise_scale=scale, epsilon=0.0)
    assert 2 * variation <= allowed


@given(st.integers(1, 10_000), st.integers(1, 10**8), st.integers(2, MAX_SCALE), st.floats(0, 30))
def test_bridge_is_never_below_its_formula(num_charges, dimension, scale, target):
    bridge = bridge_delta(
        num_charges=num_charges, dimension=dimension, noise_scale=scale, epsilon=target
    )
    squared = Fraction(num_charges * dimension, 1152) / scale**4
    assert Fraction(bridge) ** 2 >= squared * Fraction(1 + math.exp(target)) ** 2


def test_bridge_of_an_epsilon_beyond_float64_is_infinity():
    assert bridge_delta(num_charges=1, dimension=1, noise_scale=2, epsilon=1e6) == math.inf


@given(
    st.floats(0.3, 4.0),
    st.integers(1, 2000),
    st.integers(1, 10**7),
    st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0, 10.0]),
    st.sampled_from([1e-5, 1e-6]),
)
def test_grid_is_the_smallest_that_fits(z, num_charges, dimension, target, delta):
    def share(steps: int) -> float:
        scale = math.ceil(Fraction(z) * steps)
        return (
            bridge_delta(
                num_charges=num_charges, dimension=dimension, noise_scale=scale, epsilon=target
            )
            / delta
        )

    allowed = [MIN_GRID_STEPS << i for i in range(5)]
    assert allowed[-1] == MAX_GRID_STEPS
    fitting = [steps for steps in allowed if z * steps <= MAX_SCALE and share(steps) <= 0.01]
    chosen = choose_grid_steps(
        noise_multiplier=z,
        num_charges=num_charges,
        dimension=dimension,
        epsilon=target,
        delta=delta,
    )
    if fitting:
        assert chosen == fitting[0]
    added_epsilon, added_delta = bridge_cost(
        num_charges=num_charges,
        dimension=dimension,
        noise_scale=math.ceil(z * chosen),
        epsilon=target,
        delta=delta,
    )
    assert added_epsilon <= 1e-5 * target
    assert added_delta <= 0.01 * delta
    assert (added_epsilon == 0) == bool(fitting)


@pytest.mark.parametrize("scale", [16, 17, 64])
def test_the_ratio_of_discrete_and_rounded_noise_is_within_its_bound(scale):
    """|log(p / r)| <= (1 + k^2 / s^2) / (8 s^2) at every integer, in high precision."""
    with mpmath.workdps(60):
        s = mpmath.mpf(scale)
        total = mpmath.nsum(lambda j: mpmath.exp(-(j**2) / (2 * s**2)), [-mpmath.inf, mpmath.inf])
        for k in [0, 1, scale // 2, scale, 3 * scale, 8 * scale, 20 * scale]:
            discrete = mpmath.exp(-(mpmath.mpf(k) ** 2) / (2 * s**2)) / total
            root = s * mpmath.sqrt(2)
            half = mpmath.mpf(1) / 2
            rounded = (mpmath.erfc((k - half) / root) - mpmath.erfc((k + half) / root)) / 2
            ratio = abs(mpmath.log(discrete / rounded))
            assert 0 < ratio <= (1 + (k / s) ** 2) / (8 * s**2)


@pytest.mark.parametrize("scale", [16, 40])
def test_the_norm_of_noise_exceeds_its_bound_as_rarely_as_claimed(scale):
    """The tail that the ratio bridge gives away, for a tail that can be counted."""
    numbers, tail, runs = 50, 3.0, 4000
    noise = discrete_gaussian(BitStream(bytes(32)), scale, numbers * runs).reshape(runs, numbers)
    squares = (noise.astype(float) ** 2).sum(axis=1) / scale**2
    share = (squares > numbers + 2 * math.sqrt(numbers * tail) + 2 * tail).mean()
    assert share <= math.exp(-tail)


def test_ratio_bridge_grows_with_numbers_and_shrinks_with_the_scale():
    arguments = {"epsilon": 32.0, "delta": 1e-5}
    costs = [
        ratio_bridge(num_charges=charges, dimension=10**4, noise_scale=scale, **arguments)
        for charges, scale in [(10, 1 << 22), (10, 1 << 20), (1000, 1 << 20)]
    ]
    assert sorted(costs) == costs
    numbers = 1000 * 10**4
    assert costs[-1][0] == pytest.approx(numbers / 2**40, rel=0.01)
    assert costs[-1][1] <= 1e-7


def test_ratio_bridge_refuses_a_scale_that_its_proof_does_not_cover():
    with pytest.raises(ValueError, match="at least 16"):
        ratio_bridge(num_charges=1, dimension=1, noise_scale=15, epsilon=1.0, delta=1e-5)


def test_numbers_that_no_grid_serves_are_refused():
    arguments = {"num_charges": 10**6, "dimension": 10**10, "epsilon": 0.5, "delta": 1e-6}
    with pytest.raises(ConfigError, match="Train fewer numbers"):
        choose_grid_steps(noise_multiplier=1.0, **arguments)


def test_noise_scale_never_passes_the_sampler():
    arguments = {"num_charges": 55, "dimension": 100_000, "epsilon": 13.0, "delta": 1e-6}
    assert choose_grid_steps(noise_multiplier=4.0, **arguments) == MAX_GRID_STEPS
    above = math.nextafter(4.0, 5.0)
    assert math.ceil(above * choose_grid_steps(noise_multiplier=above, **arguments)) <= MAX_SCALE

"""Golden values of noise on integers: what feddp adds, and what shares of it would cost.

feddp adds the noise in one place, or the whole of it on every node, so it needs the first part
alone. The second says what shares of it under secure aggregation would cost, and in how many bits.
"""

import math

import mpmath
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from feddp.common.privacy.accounting.bridge import bridge_delta
from feddp.common.privacy.accounting.renyi import ORDERS, conversion

INTEGER_ORDERS = range(2, 257)  # those of the bound for Skellam noise

# 576 s^4 times the divergence between discrete and rounded noise of one coordinate.
DIVERGENCES = [(1, 0.902), (2, 0.973), (4, 0.993), (8, 0.998), (16, 0.9996), (64, 1.0)]


@pytest.mark.parametrize(("scale", "golden"), DIVERGENCES)
def test_discrete_and_rounded_noise_have_their_golden_distance(scale: int, golden: float) -> None:
    with mpmath.workdps(50):
        root, half = scale * mpmath.sqrt(2), mpmath.mpf(1) / 2
        integers = range(-9 * scale, 9 * scale + 1)
        weights = [mpmath.exp(-(mpmath.mpf(k) ** 2) / (2 * scale**2)) for k in integers]
        total = mpmath.fsum(weights)
        divergence = mpmath.mpf(0)
        for k, weight in zip(integers, weights, strict=True):
            above = [mpmath.erfc((abs(k) + side) / root) for side in (-half, half)]
            rounded = (above[0] - above[1]) / 2
            divergence += weight / total * mpmath.log(weight / total / rounded)
        found = float(divergence * 576 * scale**4)
    assert found == pytest.approx(golden, abs=6e-4)
    assert found <= 1.0
    covered = bridge_delta(num_charges=1, dimension=1, noise_scale=scale, epsilon=0.0)
    assert covered >= 2 * math.sqrt(float(divergence) / 2)


# Shares of distributed noise: d = 2^20 numbers, n nodes, 100 rounds, z = 8, delta 1e-6, kappa 4.
DIMENSION, ROUNDS, Z, DELTA = 1 << 20, 100, 8.0, 1e-6
# By bits of a number: the step gamma over C, the inflated norm over C, epsilon.
BITS = {
    12: (1.56e-2, 8.0719, 114.24),
    14: (3.91e-3, 2.2388, 17.701),
    16: (9.77e-4, 1.1187, 7.7171),
    18: (2.44e-4, 1.0079, 6.7967),
    20: (6.10e-5, 1.0005, 6.7387),
    24: (3.81e-6, 1.0000, 6.7347),
}


def step_of(bits: int, nodes: int) -> float:
    """gamma, where 2^b gamma = 2 kappa sqrt(C^2 n^2 / d + (gamma^2 / 4 + sigma^2) n)."""
    sigma = Z / math.sqrt(nodes)

    def excess(step: float) -> float:
        spread = nodes**2 / DIMENSION + (step**2 / 4 + sigma**2) * nodes
        return 2**bits * step - 8 * math.sqrt(spread)

    return float(brentq(excess, 1e-9, 1.0, xtol=1e-15))


def inflated_norm(step: float) -> float:
    """Over C, in units of C: what conditional stochastic rounding may make of norm C."""
    norm_, root = 1 / step, math.sqrt(DIMENSION)
    rounded = norm_**2 + DIMENSION / 4 + math.sqrt(2 * 0.5) * (norm_ + root / 2)
    return step * math.sqrt(min(rounded, (norm_ + root) ** 2))


def distributed_epsilon(step: float, nodes: int, *, surviving: int) -> float:
    """Sum of discrete Gaussians of as many nodes as survive (Kairouz, Liu & Steinke 2021)."""
    local = Z / math.sqrt(nodes) / step
    tail = 10 * math.fsum(
        math.exp(-2 * math.pi**2 * local**2 * k / (k + 1)) for k in range(1, surviving)
    )
    steps = inflated_norm(step) / step
    scale = math.sqrt(surviving) * local
    second = steps / scale
    first = min(math.sqrt(DIMENSION) * steps, steps**2) / scale

    def divergence(order: float) -> float:
        return min(
            order / 2 * second**2 + tail * DIMENSION,
            order / 2 * (second**2 + 2 * first * tail + tail**2 * DIMENSION),
            order / 2 * (second + math.sqrt(DIMENSION) * tail) ** 2,
        )

    return min(ROUNDS * divergence(order) + conversion(order, DELTA) for order in INTEGER_ORDERS)


def skellam_epsilon(step: float, nodes: int) -> float:
    """The sum of Skellam noise of the same variance (Agarwal, Kairouz & Liu 2021)."""
    variance = (Z / step) ** 2
    second = inflated_norm(step) / step
    first = min(math.sqrt(DIMENSION) * second, second**2)

    def divergence(order: float) -> float:
        added = min(
            ((2 * order - 1) * second**2 + 6 * first) / (4 * variance**2),
            3 * first / (2 * variance),
        )
        return order / (2 * variance) * second**2 + added

    return min(ROUNDS * divergence(order) + conversion(order, DELTA) for order in INTEGER_ORDERS)


@pytest.mark.parametrize("bits", BITS)
def test_shares_of_noise_have_their_golden_epsilon_by_bits(bits: int) -> None:
    step, inflated, golden = BITS[bits]
    found = step_of(bits, 100)
    assert found == pytest.approx(step, rel=5e-3)
    assert inflated_norm(found) == pytest.approx(inflated, rel=1e-3)
    assert distributed_epsilon(found, 100, surviving=100) == pytest.approx(golden, rel=1e-3)
    assert skellam_epsilon(found, 100) == pytest.approx(golden, rel=1e-3)


def test_without_a_grid_the_shares_are_one_gaussian() -> None:
    def excess(value: float) -> float:
        s = Z / math.sqrt(ROUNDS)
        second = math.exp(value + norm.logcdf(-1 / (2 * s) - value * s))
        return float(norm.cdf(1 / (2 * s) - value * s)) - second - DELTA

    assert float(brentq(excess, 0, 50, xtol=1e-10)) == pytest.approx(6.3121, abs=1e-4)
    renyi = min(ROUNDS * order / (2 * Z**2) + conversion(order, DELTA) for order in ORDERS)
    assert renyi == pytest.approx(6.7346, abs=1e-4)


# At gamma = 2e-3, by the nodes of 100 that do not answer.
DROPPED = {0: 10.270, 5: 10.607, 10: 10.983, 20: 11.874, 30: 12.826, 50: 15.575}


@pytest.mark.parametrize("dropped", DROPPED)
def test_nodes_that_do_not_answer_take_their_shares_of_the_noise_with_them(dropped: int) -> None:
    found = distributed_epsilon(2e-3, 100, surviving=100 - dropped)
    assert found == pytest.approx(DROPPED[dropped], rel=2e-3)

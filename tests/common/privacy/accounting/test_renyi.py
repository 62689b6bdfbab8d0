"""Renyi divergences against closed forms of our own and golden values."""

import itertools
import math

import numpy as np
import pytest

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.epsilon import COARSE, epsilon
from feddp.common.privacy.accounting.renyi import ORDERS, epsilon_rdp, renyi_divergence, to_epsilon
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    REPLACE_ONE,
    ZERO_OUT,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)


def closed_form(q: float, z: float, order: int) -> float:
    """log(1 + sum_k>=2 C(a,k) (1-q)^(a-k) q^k (e^(k(k-1)/2z^2) - 1)) / (a - 1): positive terms."""
    terms = (
        math.comb(order, k) * (1 - q) ** (order - k) * q**k * math.expm1(k * (k - 1) / (2 * z * z))
        for k in range(2, order + 1)
    )
    return math.log1p(math.fsum(terms)) / (order - 1)


def test_sampled_gaussian_is_its_closed_form_on_a_thousand_points():
    rng = np.random.default_rng(0)
    for q, z in zip(rng.uniform(0.005, 0.5, 100), rng.uniform(0.6, 6.0, 100), strict=True):
        orders = [2, 3, 4, 5, 6, 8, 10, 12, 14, 16]
        found = renyi_divergence(PoissonGaussianEvent(q, z), ADD_OR_REMOVE_ONE, orders)
        expected = [closed_form(q, z, order) for order in orders]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("q", "z", "order", "golden"),
    [
        (0.01, 1.0, 8.3, 9.892877561e-4),
        (0.01, 1.0, 4.2, 3.836473110e-4),
        (0.05, 1.0, 3.7, 9.998221839e-3),
        (0.01, 1.0, 2.0, 1.718134221e-4),
        (0.01, 1.0, 8.0, 8.936439076e-4),
        (0.1, 2.0, 6.0, 9.589171016e-3),
    ],
)
def test_one_round_at_one_order_has_its_golden_value(q, z, order, golden):
    found = renyi_divergence(PoissonGaussianEvent(q, z), ADD_OR_REMOVE_ONE, [order])
    assert found[0] == pytest.approx(golden, rel=1e-9)


@pytest.mark.parametrize(
    ("order", "divergence", "delta", "golden"),
    [
        (8.3, 1.0, 1e-6, 2.47425651),
        (4.2, 5.0, 1e-6, 8.59694942),
        (32.0, 0.1, 1e-5, 0.32783806),
    ],
)
def test_conversion_has_its_golden_values(order, divergence, delta, golden):
    assert to_epsilon(divergence, order, delta) == pytest.approx(golden, abs=1e-8)


@pytest.mark.parametrize(
    ("z", "rounds", "delta", "golden"),
    [(1.0, 1, 1e-5, 4.72851), (0.5, 1, 1e-5, 10.72551), (8.0, 100, 1e-6, 6.73462)],
)
def test_gaussian_has_its_golden_values(z, rounds, delta, golden):
    value = epsilon_rdp([(GaussianEvent(z), rounds)], delta, ZERO_OUT)
    assert value == pytest.approx(golden, abs=1e-5)


def test_replacing_a_user_moves_a_gaussian_twice_as_far():
    replaced = epsilon_rdp([(GaussianEvent(1.0), 1)], 1e-5, REPLACE_ONE)
    assert replaced == pytest.approx(10.72551, abs=1e-5)
    fixed = epsilon_rdp([(FixedSizeGaussianEvent(10_000, 200, 1.0), 500)], 1e-5, REPLACE_ONE)
    assert fixed == pytest.approx(31.50, abs=0.01)  # 5.43 without the halved multiplier


@pytest.mark.parametrize(("q", "z", "rounds"), [(0.02, 1.0, 500), (0.1, 2.0, 50), (1.0, 9.0, 20)])
def test_the_privacy_loss_distribution_is_never_looser(q, z, rounds):
    charges = [(PoissonGaussianEvent(q, z), rounds)]
    tight = epsilon(charges, delta=1e-5, relation=ADD_OR_REMOVE_ONE, interval=COARSE)
    assert tight <= epsilon_rdp(charges, 1e-5, ADD_OR_REMOVE_ONE)


def test_orders_are_above_one_and_rise():
    assert ORDERS[0] > 1.01
    assert all(left < right for left, right in itertools.pairwise(ORDERS))


def test_several_coins_are_refused():
    with pytest.raises(ConfigError, match="No Renyi bound"):
        epsilon_rdp([(PoissonGaussianEvent(0.1, 1.0, 2), 1)], 1e-5, ADD_OR_REMOVE_ONE)

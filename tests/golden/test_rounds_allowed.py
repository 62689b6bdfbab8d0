"""Golden numbers of rounds: what each rule of stopping allows at delta 1e-6; dp-accounting 0.6.0.

Only two of the rules are feddp's: a fixed schedule by the privacy loss distribution, and a filter
at one Renyi order that was fixed beforehand. The others are looser, or hold for neither.
"""

import math

import numpy as np
import pytest
from scipy.stats import norm

from feddp.common.privacy.accounting.epsilon import FINE, epsilon
from feddp.common.privacy.accounting.renyi import ORDERS, conversion, epsilon_rdp, renyi_divergence
from feddp.common.privacy.accounting.renyi_filter import budget, choose_order, cost
from feddp.common.privacy.mechanism.allocation import flat_clip_noise_multiplier
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    ZERO_OUT,
    GaussianEvent,
    PoissonGaussianEvent,
)

DELTA = 1e-6

# (q, z, epsilon): filter at one order, best order afterwards, union bound over all orders, PLD.
ALLOWED = {
    (0.01, 1.0, 2.0): (531, 531, 32, 874),
    (0.01, 1.0, 8.0): (11476, 11476, 8385, 12987),
    (0.05, 1.0, 8.0): (368, 368, 229, 444),
    (0.05, 1.0, 2.0): (1, 1, 0, 7),
}


def best_order_rounds(event: PoissonGaussianEvent, target: float, delta: float) -> int:
    """Most rounds of which some order says that they cost at most the target."""
    each = renyi_divergence(event, ADD_OR_REMOVE_ONE)
    left = [target - conversion(order, delta) for order in ORDERS]
    return max(0, *(math.floor(total / one) for total, one in zip(left, each, strict=True)))


@pytest.mark.parametrize(("q", "z", "target"), ALLOWED)
def test_filters_allow_their_golden_number_of_rounds(q: float, z: float, target: float) -> None:
    event = PoissonGaussianEvent(q, z)
    at_one_order, afterwards, union, _ = ALLOWED[q, z, target]
    order = choose_order([(event, 100)], target, DELTA, ADD_OR_REMOVE_ONE)
    total, each = budget(target, DELTA, order), cost(event, order, ADD_OR_REMOVE_ONE)
    assert math.floor(total / each) == at_one_order
    assert best_order_rounds(event, target, DELTA) == afterwards
    assert len(ORDERS) == 156
    assert best_order_rounds(event, target, DELTA / len(ORDERS)) == union


@pytest.mark.parametrize(
    ("q", "z", "target"),
    [
        pytest.param(*key, marks=() if key[1:] == (1.0, 2.0) else (pytest.mark.slow,))
        for key in ALLOWED
    ],
)
def test_a_fixed_schedule_allows_its_golden_number_of_rounds(
    q: float, z: float, target: float
) -> None:
    *_, rounds = ALLOWED[q, z, target]

    def bound(count: int) -> float:
        charges = [(PoissonGaussianEvent(q, z), count)]
        return epsilon(charges, delta=DELTA, relation=ADD_OR_REMOVE_ONE, interval=FINE)

    assert bound(rounds) <= target < bound(rounds + 1)


# Without sampling, z = 10: exact, by Renyi divergences, by plain zero concentration.
@pytest.mark.parametrize(
    ("target", "exact", "renyi", "concentrated"), [(8.0, 234, 210, 181), (2.0, 20, 17, 13)]
)
def test_without_sampling_each_bound_allows_its_golden_number_of_rounds(
    target: float, exact: int, renyi: int, concentrated: int
) -> None:
    def exact_delta(count: int) -> float:
        s = 10 / math.sqrt(count)
        second = math.exp(target + norm.logcdf(-1 / (2 * s) - target * s))
        return float(norm.cdf(1 / (2 * s) - target * s)) - second

    def concentrated_epsilon(count: int) -> float:
        rho = count / 200
        return rho + 2 * math.sqrt(rho * math.log(1 / DELTA))

    def bound(count: int) -> float:
        return epsilon([(GaussianEvent(10.0), count)], delta=DELTA, relation=ZERO_OUT)

    assert exact_delta(exact) <= DELTA < exact_delta(exact + 1)
    assert bound(exact) <= target * (1 + 1e-4)
    assert bound(exact + 1) > target
    for count in (renyi, renyi + 1):
        found = epsilon_rdp([(GaussianEvent(10.0), count)], DELTA, ZERO_OUT)
        assert (found <= target) == (count == renyi)
    assert concentrated_epsilon(concentrated) <= target < concentrated_epsilon(concentrated + 1)


def generic_bound(q: float, z: float, rounds: int, delta: float) -> float:
    """Poisson sampling of any mechanism with the Renyi curve of a Gaussian, integer orders."""
    best = math.inf
    for order in range(2, 257):
        sizes = np.arange(3, order + 1)
        weights = [
            math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1) for k in sizes
        ]
        logs = [
            (order - 1) * math.log1p(-q) + math.log(order * q - q + 1),
            math.log(math.comb(order, 2))
            + 2 * math.log(q)
            + (order - 2) * math.log1p(-q)
            + 2 / (2 * z * z),
            *(
                math.log(3)
                + weight
                + (order - k) * math.log1p(-q)
                + k * math.log(q)
                + (k - 1) * k / (2 * z * z)
                for weight, k in zip(weights, sizes, strict=True)
            ),
        ]
        divergence = float(np.logaddexp.reduce(logs)) / (order - 1)
        best = min(best, rounds * divergence + conversion(order, delta))
    return best


@pytest.mark.parametrize(
    ("q", "z", "rounds", "delta", "generic", "renyi"),
    [
        (0.01, 1.0, 1000, 1e-6, 2.8341, 2.4367),
        pytest.param(0.02, 1.0, 500, 1e-5, 3.7662, 3.1443, marks=pytest.mark.slow),
        pytest.param(0.1, 2.0, 500, 1e-5, 8.0356, 6.0346, marks=pytest.mark.slow),
    ],
)
def test_a_generic_bound_for_sampled_discrete_noise_would_cost_more_than_the_bridge(
    q: float, z: float, rounds: int, delta: float, generic: float, renyi: float
) -> None:
    assert generic_bound(q, z, rounds, delta) == pytest.approx(generic, rel=1e-3)
    charges = [(PoissonGaussianEvent(q, z), rounds)]
    assert epsilon_rdp(charges, delta, ADD_OR_REMOVE_ONE) == pytest.approx(renyi, rel=1e-3)


# q = .02, 500 rounds, delta 1e-5: noise per coordinate with mean 1, and what it costs.
UNEQUAL = {
    "the same everywhere": ([1.0], 2.7735),
    "half and half": ([0.8, 1.2], 4.6680),
    "half and half, further apart": ([2 / 3, 4 / 3], 7.6172),
    "a tenth at a half": ([0.5] + 9 * [9.5 / 9], 17.5707),
    "a tenth at a quarter": ([0.25] + 9 * [9.75 / 9], 134.4856),
}


@pytest.mark.parametrize("name", UNEQUAL)
def test_unequal_noise_costs_what_its_least_does(name: str) -> None:
    multipliers, golden = UNEQUAL[name]
    assert sum(multipliers) / len(multipliers) == pytest.approx(1.0)
    least = flat_clip_noise_multiplier(multipliers)
    charges = [(PoissonGaussianEvent(0.02, least), 500)]
    interval = 1e-3 if golden < 50 else 1e-2
    found = epsilon(charges, delta=1e-5, relation=ADD_OR_REMOVE_ONE, interval=interval)
    assert found == pytest.approx(golden, rel=1e-3)

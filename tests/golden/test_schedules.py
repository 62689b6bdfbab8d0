"""Golden epsilons of whole schedules: both accountants, both directions, mixed and burned rounds.

Computed with dp-accounting 0.6.0; those of a Gaussian are exact (Balle & Wang 2018, theorem 8).
"""

import math

import pytest
from dp_accounting import dp_event as events
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from feddp.common.privacy.accounting.epsilon import COARSE, epsilon
from feddp.common.privacy.accounting.renyi import epsilon_rdp
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    RELATIONS,
    REPLACE_ONE,
    ZERO_OUT,
    Event,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)

BASE = PoissonGaussianEvent(0.01, 1.0)

# (z, rounds, delta): exact, RDP.
GAUSSIAN = [
    (1.0, 1, 1e-5, 4.37718, 4.72851),
    (0.5, 1, 1e-5, 9.99726, 10.72551),
    (2.5, 20, 1e-6, 9.61740, 10.23194),
    (10.0, 20, 1e-6, 1.99453, 2.14304),
    (8.0, 100, 1e-6, 6.31206, 6.73462),
    (1.0, 100, 1e-5, 91.81729, 96.11631),
    (0.5, 100, 1e-5, 284.39185, 294.86126),
]


def exact_gaussian(z: float, rounds: int, delta: float) -> float:
    """Solves delta = Phi(1/2s - es) - e^e Phi(-1/2s - es), s = z / sqrt(rounds)."""
    s = z / math.sqrt(rounds)

    def excess(value: float) -> float:
        second = math.exp(value + norm.logcdf(-1 / (2 * s) - value * s))
        return float(norm.cdf(1 / (2 * s) - value * s)) - second - delta

    return float(brentq(excess, 0, 1000, xtol=1e-12))


@pytest.mark.parametrize(("z", "rounds", "delta", "golden", "renyi"), GAUSSIAN)
def test_a_gaussian_has_its_exact_epsilon_by_the_loss_and_a_larger_one_by_renyi(
    z: float, rounds: int, delta: float, golden: float, renyi: float
) -> None:
    charges = [(GaussianEvent(z), rounds)]
    exact = exact_gaussian(z, rounds, delta)
    interval = 1e-4 if golden < 50 else COARSE  # the grid reaches far beyond epsilon
    found = epsilon(charges, delta=delta, relation=ZERO_OUT, interval=interval)
    assert exact == pytest.approx(golden, abs=1e-5)
    assert exact - 1e-9 <= found <= exact * (1 + 1e-4)
    assert epsilon_rdp(charges, delta, ZERO_OUT) == pytest.approx(renyi, abs=1e-5)


def test_a_fixed_cohort_costs_its_golden_epsilon_under_either_relation() -> None:
    charges = [(GaussianEvent(1.0), 100)]
    replaced = epsilon(charges, delta=1e-5, relation=REPLACE_ONE, interval=COARSE)
    assert replaced == pytest.approx(284.392, rel=1e-4)
    assert epsilon_rdp(charges, 1e-5, REPLACE_ONE) == pytest.approx(294.861, rel=1e-5)


# (q, z, rounds, delta): epsilon of adding a user alone, which is the smaller direction.
ADDED = [
    (0.01, 1.0, 1000, 1e-6, 1.5891),
    (0.01, 1.0, 1000, 1e-5, 1.4167),
    (0.01, 0.7, 100, 1e-5, 0.5073),
    (0.01, 0.8, 1000, 1e-5, 1.9832),
    (0.01, 0.6, 100, 1e-6, 0.6441),
    (0.01, 2.0, 1000, 1e-6, 0.6656),
    (0.01, 4.0, 1000, 1e-6, 0.3086),
    (0.02, 1.0, 500, 1e-5, 1.9703),
    (0.02, 1.0, 2000, 1e-5, 4.6274),
    (0.05, 1.0, 100, 1e-5, 1.8818),
    (0.05, 1.0, 200, 1e-6, 3.2654),
    (0.1, 1.0, 100, 1e-5, 3.9892),
    (0.1, 2.0, 500, 1e-6, 5.4876),
    (0.1, 2.0, 500, 1e-5, 4.9566),
    (0.1, 4.0, 2000, 1e-5, 4.9817),
    (0.005, 0.8, 2000, 1e-6, 1.6093),
    (0.001, 0.8, 10_000, 1e-5, 0.6509),
    (0.001, 2.0, 10_000, 1e-6, 0.2008),
]


QUICK = {0, 2, 6}


@pytest.mark.parametrize(
    ("q", "z", "rounds", "delta", "golden"),
    [
        pytest.param(*row, marks=() if number in QUICK else (pytest.mark.slow,))
        for number, row in enumerate(ADDED)
    ],
)
def test_adding_a_user_costs_less_than_the_bound_that_is_promised(
    q: float, z: float, rounds: int, delta: float, golden: float
) -> None:
    one = pld.from_gaussian_mechanism(z, sampling_prob=q, value_discretization_interval=1e-4)
    added = one._pmf_add.self_compose(rounds).get_epsilon_for_delta(delta)
    assert added == pytest.approx(golden, rel=1e-3)
    charges = [(PoissonGaussianEvent(q, z), rounds)]
    promised = epsilon(charges, delta=delta, relation=ADD_OR_REMOVE_ONE, interval=COARSE)
    assert promised > 1.02 * added


@pytest.mark.slow
def test_forty_kinds_of_rounds_have_their_golden_epsilon() -> None:
    mixed: list[tuple[Event, int]] = [
        (PoissonGaussianEvent(0.01 + 0.001 * i, 1 + 0.02 * i), 25) for i in range(40)
    ]
    found = epsilon(mixed, delta=1e-6, relation=ADD_OR_REMOVE_ONE, interval=COARSE)
    assert found == pytest.approx(3.76847, rel=1e-5)
    assert epsilon_rdp(mixed, 1e-6, ADD_OR_REMOVE_ONE) == pytest.approx(4.07167, rel=1e-5)


@pytest.mark.parametrize(
    ("burned", "golden"), [(0, 2.12525), (1, 2.12622), (10, 2.13490), (50, 2.17312)]
)
def test_burned_attempts_cost_what_rounds_do(burned: int, golden: float) -> None:
    charges = [(BASE, 1000), (BASE, burned)]
    found = epsilon(charges, delta=1e-6, relation=ADD_OR_REMOVE_ONE, interval=COARSE)
    assert found == pytest.approx(golden, abs=1.5e-5)


# Trials of a tuned schedule: mean number, epsilon of the selected one (RDP), of all of them (PLD).
TUNED = [(1, 2.4547, 2.1253), (3, 3.6681, 3.6271), (10, 4.4312, 6.9109), (30, 5.0148, 13.0327)]


@pytest.mark.parametrize(
    ("trials", "selected", "composed"),
    [pytest.param(*row, marks=() if row[0] == 3 else (pytest.mark.slow,)) for row in TUNED],
)
def test_tuning_costs_its_golden_epsilon_and_feddp_charges_all_trials(
    trials: int, selected: float, composed: float
) -> None:
    made = RdpAccountant(neighboring_relation=RELATIONS[ADD_OR_REMOVE_ONE])
    trial = events.SelfComposedDpEvent(BASE.to_dp_event(), 1000)
    made.compose(events.RepeatAndSelectDpEvent(trial, trials, 1))
    assert made.get_epsilon(1e-6) == pytest.approx(selected, rel=1e-3)
    found = epsilon(
        [(BASE, 1000 * trials)], delta=1e-6, relation=ADD_OR_REMOVE_ONE, interval=COARSE
    )
    assert found == pytest.approx(composed, rel=1e-3)


# (N, cohort, z, rounds): by Renyi with the halved multiplier, and the mistake of not halving it.
@pytest.mark.parametrize(
    ("num_users", "cohort", "rounds", "golden", "mistaken"),
    [(10_000, 200, 500, 31.50, 5.43), (1000, 50, 100, 34.26, 6.47)],
)
def test_cohorts_of_fixed_size_cost_far_more_than_without_the_factor_of_two(
    num_users: int, cohort: int, rounds: int, golden: float, mistaken: float
) -> None:
    def bound(z: float) -> float:
        charges = [(FixedSizeGaussianEvent(num_users, cohort, z), rounds)]
        return epsilon_rdp(charges, 1e-5, REPLACE_ONE)

    assert bound(1.0) == pytest.approx(golden, rel=1e-3)
    assert bound(2.0) == pytest.approx(mistaken, rel=1e-3)


def test_a_third_accountant_is_near_and_above() -> None:
    """opacus estimates from above in one direction, to within a hundredth."""
    other = PRVAccountant()
    other.history = [(1.0, 0.01, 1000)]
    found = other.get_epsilon(1e-6, eps_error=0.01)
    assert found == pytest.approx(2.1346, rel=1e-3)
    ours = epsilon([(BASE, 1000)], delta=1e-6, relation=ADD_OR_REMOVE_ONE)
    assert ours < found < ours + 0.011


def test_epsilon_rises_with_the_coins_of_a_user() -> None:
    found = [
        epsilon(
            [(PoissonGaussianEvent(0.01, 2.0, coins), 100)],
            delta=1e-6,
            relation=ADD_OR_REMOVE_ONE,
            interval=COARSE,
        )
        for coins in (1, 2, 3, 5, 8)
    ]
    assert found == sorted(set(found))

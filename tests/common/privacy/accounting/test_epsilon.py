"""Accounting: golden values, a second accountant, exact formulas, and rounding toward privacy."""

import itertools
import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.optimize import brentq
from scipy.stats import norm

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.epsilon import (
    COARSE,
    PLD,
    RDP,
    accountant_of,
    epsilon,
    epsilon_curve,
)
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


def bound(q: float, z: float, rounds: int, delta: float, **interval: float) -> float:
    charges = [(PoissonGaussianEvent(q, z), rounds)]
    return epsilon(charges, delta=delta, relation=ADD_OR_REMOVE_ONE, **interval)


def rdp(q: float, z: float, rounds: int, delta: float) -> float:
    return epsilon_rdp([(PoissonGaussianEvent(q, z), rounds)], delta, ADD_OR_REMOVE_ONE)


def spent(*charges: tuple[Event, int], delta: float, relation: str = ADD_OR_REMOVE_ONE) -> float:
    return epsilon(charges, delta=delta, relation=relation)


# (q, z, rounds, delta): PLD at 1e-4, PLD at 1e-3, RDP; dp-accounting 0.6.0, add-or-remove-one.
POISSON = [
    (0.01, 1.0, 1000, 1e-6, 2.1245, 2.1253, 2.4367),
    (0.01, 1.0, 1000, 1e-5, 1.8282, 1.8289, 2.1014),
    (0.01, 0.7, 100, 1e-5, 2.3673, 2.3674, 3.1481),
    (0.01, 0.8, 1000, 1e-5, 3.1410, 3.1414, 3.6956),
    (0.01, 0.6, 100, 1e-6, 4.7512, 4.7513, 5.7907),
    (0.01, 2.0, 1000, 1e-6, 0.7209, 0.7230, 0.7828),
    (0.01, 4.0, 1000, 1e-6, 0.3192, 0.3233, 0.3470),
    (0.02, 1.0, 500, 1e-5, 2.7735, 2.7737, 3.1443),
    (0.02, 1.0, 2000, 1e-5, 5.6158, 5.6165, 6.1506),
    (0.05, 1.0, 100, 1e-5, 3.5021, 3.5022, 4.0389),
    (0.05, 1.0, 200, 1e-6, 5.4859, 5.4859, 6.0971),
    (0.1, 1.0, 100, 1e-5, 7.0466, 7.0466, 7.9039),
    (0.1, 2.0, 500, 1e-6, 6.2167, 6.2169, 6.6793),
    (0.1, 2.0, 500, 1e-5, 5.5555, 5.5556, 6.0346),
    (0.1, 4.0, 2000, 1e-5, 5.1170, 5.1177, 5.5303),
    (0.005, 0.8, 2000, 1e-6, 2.5030, 2.5041, 3.0635),
    (0.001, 0.8, 10_000, 1e-5, 0.7825, 0.7958, 1.3838),
    (0.001, 2.0, 10_000, 1e-6, 0.2056, 0.2626, 0.2447),
]


@pytest.mark.parametrize(("q", "z", "rounds", "delta", "fine", "coarse", "renyi"), POISSON)
def test_poisson_subsampled_gaussian_has_its_golden_values(
    q, z, rounds, delta, fine, coarse, renyi
):
    value = bound(q, z, rounds, delta)
    assert value == pytest.approx(fine, rel=1e-3)
    assert bound(q, z, rounds, delta, interval=COARSE) == pytest.approx(coarse, rel=1e-3)
    assert rdp(q, z, rounds, delta) == pytest.approx(renyi, rel=1e-3)
    assert value <= rdp(q, z, rounds, delta)
    assert value <= bound(q, z, rounds, delta, interval=COARSE)


# (z, rounds, delta): exact; Balle & Wang 2018.
GAUSSIAN = [
    (1.0, 1, 1e-5, 4.37718),
    (0.5, 1, 1e-5, 9.99726),
    (2.5, 20, 1e-6, 9.61740),
    (10.0, 20, 1e-6, 1.99453),
    (8.0, 100, 1e-6, 6.31206),
    (1.0, 100, 1e-5, 91.81729),
]


def exact_gaussian(z: float, rounds: int, delta: float) -> float:
    """Solves delta = Phi(1/2s - es) - e^e Phi(-1/2s - es), s = z / sqrt(rounds)."""
    s = z / math.sqrt(rounds)

    def excess(value: float) -> float:
        second = math.exp(value + norm.logcdf(-1 / (2 * s) - value * s))
        return float(norm.cdf(1 / (2 * s) - value * s)) - second - delta

    return float(brentq(excess, 0, 1000, xtol=1e-12))


@pytest.mark.parametrize(("z", "rounds", "delta", "golden"), GAUSSIAN)
def test_without_sampling_the_bound_is_the_exact_gaussian_and_not_below(z, rounds, delta, golden):
    exact = exact_gaussian(z, rounds, delta)
    value = bound(1.0, z, rounds, delta)
    assert exact == pytest.approx(golden, abs=1e-5)
    assert exact - 1e-9 <= value <= exact * (1 + 1e-4)


@pytest.mark.parametrize(
    ("q", "z", "rounds", "delta"), [(0.05, 1.0, 55, 1e-5), (0.013, 0.77, 300, 3e-6)]
)
def test_the_accountant_of_dp_accounting_alone_agrees(q, z, rounds, delta):
    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4
    )
    accountant.compose(
        dp_accounting.SelfComposedDpEvent(PoissonGaussianEvent(q, z).to_dp_event(), rounds)
    )
    assert bound(q, z, rounds, delta) == pytest.approx(accountant.get_epsilon(delta), rel=2e-6)
    assert bound(q, z, rounds, delta) >= accountant.get_epsilon(delta)


def test_the_worse_direction_decides():
    """Adding a user alone would give 1.5891 where removing one gives 2.1245."""
    value = bound(0.01, 1.0, 1000, 1e-6)
    add_alone = pld.from_gaussian_mechanism(
        1.0, sampling_prob=0.01, value_discretization_interval=1e-4
    )._pmf_add.self_compose(1000)
    assert add_alone.get_epsilon_for_delta(1e-6) == pytest.approx(1.5891, rel=1e-3)
    assert value == pytest.approx(2.1245, rel=1e-3)


@pytest.mark.parametrize("direction", ["z", "q", "rounds", "delta"])
def test_epsilon_is_monotone(direction):
    grid = {
        "z": [(0.02, z, 100, 1e-5) for z in (4.0, 2.0, 1.5, 1.001, 1.0, 0.8)],
        "q": [(q, 1.0, 100, 1e-5) for q in (0.001, 0.01, 0.0101, 0.05, 0.2, 1.0)],
        "rounds": [(0.02, 1.0, rounds, 1e-5) for rounds in (0, 1, 2, 10, 100, 101, 1000)],
        "delta": [(0.02, 1.0, 100, delta) for delta in (1e-3, 1e-5, 1e-6, 1e-9, 1e-12)],
    }[direction]
    values = [bound(*arguments) for arguments in grid]
    assert all(left < right for left, right in itertools.pairwise(values))


def test_no_charge_costs_nothing():
    assert bound(0.1, 1.0, 0, 1e-5) == 0.0
    curve = epsilon_curve(PoissonGaussianEvent(0.1, 1.0), 0, delta=1e-5, relation=ADD_OR_REMOVE_ONE)
    assert curve.shape == (0,)


def test_delta_beyond_the_accountants_reach_is_infinity_and_never_a_number_too_small():
    assert bound(0.01, 1.0, 100, 1e-18) == math.inf


CURVES = [
    (0.1, 1.0, 40, 1e-5),
    (0.001, 2.0, 200, 1e-6),
    (1.0, 5.0, 12, 1e-6),
    (0.01, 2.0, 700, 1e-6),  # in strides of three
]


@pytest.mark.parametrize(("q", "z", "rounds", "delta"), CURVES)
def test_curve_rises_to_epsilon_and_never_above_it(q, z, rounds, delta):
    curve = epsilon_curve(
        PoissonGaussianEvent(q, z), rounds, delta=delta, relation=ADD_OR_REMOVE_ONE
    )
    assert curve.shape == (rounds,)
    assert np.all(np.diff(curve) >= 0)
    assert curve[-1] == bound(q, z, rounds, delta)
    assert curve.max() <= curve[-1]
    for count in range(1, rounds + 1, max(1, rounds // 8)):
        assert curve[count - 1] >= bound(q, z, count, delta) - 1e-6


def exact_subsampled(q: float, z: float, loss: float) -> tuple[float, float]:
    """Hockey-stick divergences of one round in closed form: a user removed, a user added."""

    def point_of(ratio: float) -> float:
        """Where the density ratio of with to without the user equals `ratio`."""
        return z * z * math.log((ratio - 1 + q) / q) + 0.5

    def with_user(x: float, tail: object) -> float:
        return (1 - q) * float(tail(x / z)) + q * float(tail((x - 1) / z))

    x = point_of(math.exp(loss))
    removed = with_user(x, norm.sf) - math.exp(loss) * float(norm.sf(x / z))
    if math.exp(-loss) <= 1 - q:  # the ratio is never that small
        return removed, 0.0
    x = point_of(math.exp(-loss))
    return removed, float(norm.cdf(x / z)) - math.exp(loss) * with_user(x, norm.cdf)


@pytest.mark.parametrize(("q", "z"), [(0.01, 0.7), (0.05, 1.0), (0.3, 0.5), (0.9, 2.0)])
@pytest.mark.parametrize("delta", [1e-5, 1e-8])
def test_one_round_is_the_closed_form_of_the_worse_direction_and_not_below(q, z, delta):
    value = bound(q, z, 1, delta)
    assert max(exact_subsampled(q, z, value)) <= delta
    assert max(exact_subsampled(q, z, value * (1 - 1e-3))) > delta


# (event, count, delta, relation): golden; dp-accounting 0.6.0.
ANY_EVENT = [
    (PoissonGaussianEvent(0.05, 1.0), 100, 1e-5, REPLACE_ONE, 4.8895),
    (GaussianEvent(8.0), 100, 1e-6, ZERO_OUT, 6.31206),
    pytest.param(GaussianEvent(1.0), 100, 1e-5, ZERO_OUT, 91.817, marks=pytest.mark.slow),
    pytest.param(GaussianEvent(1.0), 100, 1e-5, REPLACE_ONE, 284.392, marks=pytest.mark.slow),
    (GaussianEvent(1.0), 1, 1e-5, REPLACE_ONE, 9.9973),
    (FixedSizeGaussianEvent(1000, 100, 1.699), 55, 0.99e-5, REPLACE_ONE, 7.997),
    (FixedSizeGaussianEvent(1000, 100, 3.791), 55, 0.99e-5, REPLACE_ONE, 2.0),
]


@pytest.mark.parametrize(("event", "count", "delta", "relation", "golden"), ANY_EVENT)
def test_any_event_has_its_golden_value(event, count, delta, relation, golden):
    assert spent((event, count), delta=delta, relation=relation) == pytest.approx(golden, rel=1e-3)


# Users with several coins at q = .01, 1000 rounds, delta 1e-6, interval 1e-3, by noise multiplier.
COINS = {
    1.0: {1: 2.1253, 2: 4.5545, 3: 7.1903, 4: 10.0156, 8: 23.0827},
    2.0: {1: 0.7230, 2: 1.5261, 3: 2.3778, 4: 3.2705, 8: 7.2026},
    4.0: {1: 0.3233, 2: 0.6728, 4: 1.4175, 8: 3.0307, 16: 6.6511},
}


@pytest.mark.parametrize(
    ("z", "coins", "golden"),
    [(z, coins, golden) for z, row in COINS.items() for coins, golden in row.items()],
)
def test_a_user_with_several_coins_costs_what_the_mixture_says(z, coins, golden):
    charges = [(PoissonGaussianEvent(0.01, z, coins), 1000)]
    value = epsilon(charges, delta=1e-6, relation=ADD_OR_REMOVE_ONE, interval=COARSE)
    assert value == pytest.approx(golden, rel=1e-3)


def test_different_events_compose_to_their_golden_values():
    mixed = [
        (PoissonGaussianEvent(0.01, 1.0), 400),
        (PoissonGaussianEvent(0.02, 1.2), 300),
        (PoissonGaussianEvent(0.05, 2.0), 100),
    ]
    value = spent(*mixed, delta=1e-6)
    assert value == pytest.approx(2.53549, rel=1e-4)
    assert epsilon_rdp(mixed, 1e-6, ADD_OR_REMOVE_ONE) == pytest.approx(2.79631, rel=1e-4)


# Beside 1000 rounds of (.01, 1) at delta 1e-6.
BESIDE = [
    (PoissonGaussianEvent(0.01, 20.0), 100, 2.12463, 2.43679),
    (PoissonGaussianEvent(0.1, 20.0), 100, 2.13558, 2.44671),
    (GaussianEvent(50.0), 10, 2.14215, 2.45261),
    (GaussianEvent(10.0), 10, 2.55016, 2.82998),
]


@pytest.mark.parametrize(("event", "count", "golden", "renyi"), BESIDE)
def test_what_else_is_charged_adds_to_the_rounds(event, count, golden, renyi):
    charges = [(PoissonGaussianEvent(0.01, 1.0), 1000), (event, count)]
    assert spent(*charges, delta=1e-6) == pytest.approx(golden, rel=1e-4)
    assert epsilon_rdp(charges, 1e-6, ADD_OR_REMOVE_ONE) == pytest.approx(renyi, rel=1e-4)


def test_several_runs_cost_what_one_run_of_all_their_rounds_does():
    event = PoissonGaussianEvent(0.01, 1.0)
    runs = [(event, 300), (GaussianEvent(50.0), 2), (event, 700)]
    together = [(GaussianEvent(50.0), 2), (event, 1000)]
    assert spent(*runs, delta=1e-6) == pytest.approx(spent(*together, delta=1e-6), rel=1e-6)


def test_always_falling_coins_are_one_larger_sensitivity():
    several = spent((PoissonGaussianEvent(1.0, 10.0, 4), 20), delta=1e-6)
    assert several == pytest.approx(9.61740, rel=1e-5)
    assert spent((GaussianEvent(2.5), 20), delta=1e-6) == pytest.approx(9.61740, rel=1e-5)


def test_a_certain_coin_is_no_coin():
    sampled, plain = PoissonGaussianEvent(1.0, 2.0), GaussianEvent(2.0)
    assert spent((sampled, 9), delta=1e-5) == pytest.approx(spent((plain, 9), delta=1e-5), rel=2e-5)


def test_zeroing_a_user_costs_what_removing_one_does():
    charges = [(PoissonGaussianEvent(0.02, 1.0, coins), 50) for coins in (1, 2)]
    for charge in charges:
        removed = spent(charge, delta=1e-5)
        assert spent(charge, delta=1e-5, relation=ZERO_OUT) == removed


MATRIX = {
    (PoissonGaussianEvent(0.1, 1.0), ADD_OR_REMOVE_ONE): (PLD, 1.6845),
    (PoissonGaussianEvent(0.1, 1.0), ZERO_OUT): (PLD, 1.6845),
    (PoissonGaussianEvent(0.1, 1.0), REPLACE_ONE): (PLD, 1.7892),
    (PoissonGaussianEvent(0.1, 1.0, 2), ADD_OR_REMOVE_ONE): (PLD, None),
    (PoissonGaussianEvent(0.1, 1.0, 2), ZERO_OUT): (PLD, None),
    (PoissonGaussianEvent(0.1, 1.0, 2), REPLACE_ONE): (None, None),
    (GaussianEvent(1.0), ADD_OR_REMOVE_ONE): (PLD, 4.3772),
    (GaussianEvent(1.0), ZERO_OUT): (PLD, 4.3772),
    (GaussianEvent(1.0), REPLACE_ONE): (PLD, 9.9973),
    (FixedSizeGaussianEvent(100, 10, 2.0), ADD_OR_REMOVE_ONE): (None, None),
    (FixedSizeGaussianEvent(100, 10, 2.0), ZERO_OUT): (None, None),
    (FixedSizeGaussianEvent(100, 10, 2.0), REPLACE_ONE): (PLD, None),
}


@pytest.mark.parametrize(("event", "relation"), MATRIX)
def test_every_event_and_relation_has_its_accountant_or_is_refused(event, relation):
    accountant, golden = MATRIX[event, relation]
    if accountant is None:
        with pytest.raises(ConfigError, match="No accountant covers"):
            epsilon([(event, 1)], delta=1e-5, relation=relation)
        return
    assert accountant_of([(event, 1)], relation) == accountant
    value = spent((event, 1), delta=1e-5, relation=relation)
    if golden is not None:
        assert value == pytest.approx(golden, rel=2e-4)
    else:
        assert value > spent((PoissonGaussianEvent(0.1, 1.0), 1), delta=1e-5)


def test_the_matrix_is_complete():
    kinds = {type(event) for event, _ in MATRIX}
    assert kinds == {PoissonGaussianEvent, FixedSizeGaussianEvent, GaussianEvent}
    assert {relation for _, relation in MATRIX} == set(RELATIONS)


def test_a_cohort_of_fixed_size_composes_with_other_events():
    fixed, plain = (FixedSizeGaussianEvent(100, 10, 2.0), 20), (GaussianEvent(8.0), 1)
    both = spent(fixed, plain, delta=1e-5, relation=REPLACE_ONE)
    alone = [spent(charge, delta=1e-5, relation=REPLACE_ONE) for charge in (fixed, plain)]
    assert max(alone) < both < sum(alone)


def test_a_plan_of_before_keeps_the_renyi_bound_of_its_cohorts_of_fixed_size():
    event = FixedSizeGaussianEvent(1000, 50, 1.0)
    asked = {"delta": 1e-5, "relation": REPLACE_ONE, "accountant": RDP}
    assert epsilon([(event, 100)], **asked) == pytest.approx(34.26, rel=1e-3)
    curve = epsilon_curve(event, 100, **asked)
    assert curve[-1] == pytest.approx(34.26, rel=1e-3)
    assert spent((event, 100), delta=1e-5, relation=REPLACE_ONE) < 0.6 * curve[-1]


@pytest.mark.parametrize(
    ("event", "count", "relation"),
    [
        (PoissonGaussianEvent(0.05, 2.0, 3), 30, ADD_OR_REMOVE_ONE),
        (FixedSizeGaussianEvent(1000, 20, 2.0), 200, REPLACE_ONE),
        (GaussianEvent(5.0), 12, ZERO_OUT),
    ],
)
def test_the_curve_of_any_event_bounds_every_number_of_charges(event, count, relation):
    curve = epsilon_curve(event, count, delta=1e-5, relation=relation)
    assert np.all(np.diff(curve) >= 0)
    assert curve[-1] == pytest.approx(spent((event, count), delta=1e-5, relation=relation))
    for charges in (1, count // 2):
        single = spent((event, charges), delta=1e-5, relation=relation)
        assert single * (1 - 1e-9) <= curve[charges - 1] <= single * 1.05

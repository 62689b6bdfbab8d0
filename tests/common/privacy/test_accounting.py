"""Accounting: golden values, a second accountant, exact formulas, and rounding toward privacy."""

import itertools
import math
from fractions import Fraction

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from common.errors import ConfigError
from common.privacy.accounting import (
    COARSE,
    MAX_GRID_STEPS,
    MAX_NOISE_MULTIPLIER,
    MIN_GRID_STEPS,
    MIN_NOISE_MULTIPLIER,
    bridge_cost,
    bridge_delta,
    calibrate_noise_multiplier,
    choose_grid_steps,
    epsilon,
    epsilon_curve,
    epsilon_rdp,
    ratio_bridge,
    schedule_event,
)
from common.privacy.noise import MAX_SCALE, BitStream, discrete_gaussian


def bound(q: float, z: float, rounds: int, delta: float, **interval: float) -> float:
    return epsilon(
        sampling_probability=q, noise_multiplier=z, num_charges=rounds, delta=delta, **interval
    )


def rdp(q: float, z: float, rounds: int, delta: float) -> float:
    return epsilon_rdp(sampling_probability=q, noise_multiplier=z, num_charges=rounds, delta=delta)


def calibrated(q: float, rounds: int, target: float, delta: float) -> float:
    return calibrate_noise_multiplier(
        sampling_probability=q, num_charges=rounds, target_epsilon=target, delta=delta
    )


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
        schedule_event(sampling_probability=q, noise_multiplier=z, num_charges=rounds)
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
    curve = epsilon_curve(sampling_probability=0.1, noise_multiplier=1.0, num_charges=0, delta=1e-5)
    assert curve.shape == (0,)


def test_delta_beyond_the_accountants_reach_is_infinity_and_never_a_number_too_small():
    assert bound(0.01, 1.0, 100, 1e-18) == math.inf


def test_event_is_the_documented_one():
    one = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.5))
    event = schedule_event(sampling_probability=0.01, noise_multiplier=1.5, num_charges=7)
    assert event == dp_accounting.SelfComposedDpEvent(one, 7)


CURVES = [
    (0.1, 1.0, 40, 1e-5),
    (0.001, 2.0, 200, 1e-6),
    (1.0, 5.0, 12, 1e-6),
    (0.01, 2.0, 700, 1e-6),  # in strides of three
]


@pytest.mark.parametrize(("q", "z", "rounds", "delta"), CURVES)
def test_curve_rises_to_epsilon_and_never_above_it(q, z, rounds, delta):
    curve = epsilon_curve(
        sampling_probability=q, noise_multiplier=z, num_charges=rounds, delta=delta
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


# (q, rounds, target, delta): z, bisected on a grid of 1e-4.
CALIBRATED = [
    (0.01, 1000, 2, 1e-6, 1.0291),
    pytest.param(0.01, 1000, 8, 1e-6, 0.6168, marks=pytest.mark.slow),
    pytest.param(0.02, 500, 8, 1e-5, 0.6552, marks=pytest.mark.slow),
    (0.05, 500, 1, 1e-5, 4.3000),
    (0.05, 200, 8, 1e-6, 0.8374),
    (0.1, 2000, 4, 1e-5, 4.9151),
    pytest.param(0.01, 100, 8, 1e-5, 0.4646, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("q", "rounds", "target", "delta", "golden"), CALIBRATED)
def test_calibrated_noise_keeps_the_target_and_a_step_less_does_not(
    q, rounds, target, delta, golden
):
    z = calibrated(q, rounds, target, delta)
    assert z == pytest.approx(golden, abs=1.01e-4)
    assert bound(q, z, rounds, delta) <= target < bound(q, z - 1e-4, rounds, delta)


def test_target_below_the_floor_of_the_coarse_grid_is_reached():
    z = calibrated(0.001, 10_000, 0.25, 1e-6)
    assert bound(0.001, MAX_NOISE_MULTIPLIER, 10_000, 1e-6, interval=COARSE) > 0.02
    assert bound(0.001, z, 10_000, 1e-6, interval=COARSE) > 0.25
    assert bound(0.001, z, 10_000, 1e-6) <= 0.25 < bound(0.001, z - 1e-4, 10_000, 1e-6)


@pytest.mark.slow
def test_calibration_stays_at_the_smallest_allowed_noise():
    assert calibrated(1e-6, 1, 8.0, 1e-5) == MIN_NOISE_MULTIPLIER


def test_target_out_of_reach_is_refused():
    with pytest.raises(ValueError, match="out of reach"):
        calibrated(1.0, 10_000, 0.5, 1e-6)


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

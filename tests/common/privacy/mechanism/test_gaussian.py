"""The mechanism: sum + noise over a public constant; nothing else makes a released update."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from feddp.common.privacy.mechanism.clipping import clip_to_grid, clip_with_bit, sum_of_squares
from feddp.common.privacy.mechanism.events import FixedSizeGaussianEvent, PoissonGaussianEvent
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism, ReleasedUpdate
from feddp.common.privacy.mechanism.noise import MAX_SCALE, BitStream, discrete_gaussian
from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.mechanism.sampling import FixedSizeSampler, PoissonSampler
from feddp.common.privacy.mechanism.summation import UpdateSum

P_THRESHOLD = 1e-3
DIMENSION = 50_000
MECHANISM = GaussianMechanism(
    sampler=PoissonSampler(0.05),
    num_units=1000,
    expected_cohort_size=50.0,
    clipping_norm=0.5,
    noise_multiplier=1.3,
    grid_steps=1 << 20,
    dimension=DIMENSION,
)
STD = 1.3 * 0.5 / 50  # z C / (q N)
QUANTILE = QuantileClipping(quantile=0.5, rate=0.2, bit_noise=2.5, smallest=0.01, largest=10.0)
ADAPTIVE = dataclasses.replace(MECHANISM, quantile=QUANTILE)
SMALL = dataclasses.replace(ADAPTIVE, dimension=100)


def stream(number: int) -> BitStream:
    return BitStream(number.to_bytes(32, "big"))


def release(points: list[np.ndarray], *, key: int) -> np.ndarray:
    total = UpdateSum.zeros(DIMENSION)
    for point in points:
        total.add(point)
    return MECHANISM.release(total, bits=stream(key)).values


def random_point(seed: int) -> np.ndarray:
    update = np.random.default_rng(seed).normal(size=DIMENSION)
    return clip_to_grid(update, clipping_norm=0.5, grid_steps=1 << 20)


def scale_p_value(values: np.ndarray, std: float) -> float:
    statistic = float(np.sum((values / std) ** 2))
    tails = stats.chi2.sf(statistic, len(values)), stats.chi2.cdf(statistic, len(values))
    return 2 * float(min(tails))


def test_release_is_the_sum_and_the_noise_over_the_expected_cohort():
    points = [random_point(seed) for seed in range(3)]
    noise = discrete_gaussian(stream(1), MECHANISM.noise_scale, DIMENSION)
    exact = sum(points) + noise
    step = Fraction(1, 2) / (1 << 20) / 50
    values = release(points, key=1)
    for i in range(0, DIMENSION, 997):
        assert values[i] == pytest.approx(float(int(exact[i]) * step), rel=1e-14)


# 50,000 draws: the relative standard error is 0.3 %; a third is more than 100 of those.
def test_empty_cohort_releases_noise_of_the_promised_size():
    assert scale_p_value(release([], key=2), STD) > P_THRESHOLD


@pytest.mark.parametrize("factor", [0.5, 2 / 3, 0.97, 1.03, 3 / 2])
def test_noise_of_another_size_is_rejected(factor):
    assert scale_p_value(release([], key=2), factor * STD) < P_THRESHOLD


@pytest.mark.parametrize("cohort", [0, 1, 2, 50, 120])
def test_divisor_and_noise_are_public_constants_whatever_the_cohort(cohort):
    point = random_point(7)
    values = release([point] * cohort, key=3)
    noise = values - cohort * point * (0.5 / (1 << 20) / 50)
    assert np.allclose(noise, release([], key=3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cohort", [0, 1, 7])
@pytest.mark.parametrize("seed", [1, 2])
def test_one_user_moves_the_release_by_at_most_c_over_qn_before_noise(cohort, seed):
    others = [random_point(100 + i) for i in range(cohort)]
    without = release(others, key=4)
    with_user = release([*others, random_point(seed)], key=4)
    assert np.linalg.norm(with_user - without) <= 0.5 / 50 * (1 + 1e-9)


@given(
    st.floats(1e-3, 60, allow_nan=False),
    st.integers(20, 24).map(lambda bits: 1 << bits),
)
def test_noise_scale_is_rounded_up_exactly(noise_multiplier, grid_steps):
    if not 2 <= noise_multiplier * grid_steps <= MAX_SCALE:
        return
    mechanism = dataclasses.replace(
        MECHANISM, noise_multiplier=noise_multiplier, grid_steps=grid_steps
    )
    exact = Fraction(noise_multiplier) * grid_steps
    assert exact <= mechanism.noise_scale < exact + 1


def test_noise_scale_just_above_an_integer_is_the_next_integer():
    just_above = math.nextafter(1.0, 2.0)
    mechanism = dataclasses.replace(MECHANISM, noise_multiplier=just_above)
    assert mechanism.noise_scale == (1 << 20) + 1
    assert dataclasses.replace(MECHANISM, noise_multiplier=1.0).noise_scale == 1 << 20


@pytest.mark.parametrize(
    "changes",
    [
        {"num_units": 0},
        {"num_units": -1000},
        {"num_units": 999},
        {"num_units": 1 << 42, "expected_cohort_size": 0.05 * (1 << 42)},
        {"expected_cohort_size": 0.0},
        {"expected_cohort_size": -50.0},
        {"expected_cohort_size": 49.0},
        {"expected_cohort_size": math.nan},
        {"expected_cohort_size": math.inf},
        {"sampler": PoissonSampler(0.06)},
        {"sampler": FixedSizeSampler(1000, 51)},
        {"sampler": FixedSizeSampler(999, 50)},
        {"quantile": dataclasses.replace(QUANTILE, bit_noise=1.3 / 2)},
        {"quantile": dataclasses.replace(QUANTILE, bit_noise=1.3 * (1 << 20))},
        {"clipping_norm": 0.0},
        {"clipping_norm": -0.5},
        {"clipping_norm": math.nan},
        {"clipping_norm": math.inf},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": -1.3},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": math.inf},
        {"noise_multiplier": 64.1},
        {"noise_multiplier": 1e-7},
        {"grid_steps": 0},
        {"grid_steps": -(1 << 20)},
        {"grid_steps": 1000},
        {"dimension": 0},
        {"dimension": -1},
    ],
    ids=str,
)
def test_invalid_combinations_cannot_be_constructed(changes):
    with pytest.raises(ValueError, match="must"):
        dataclasses.replace(MECHANISM, **changes)


def test_parameters_do_not_change_after_construction():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MECHANISM.noise_multiplier = 0.1  # type: ignore[misc]


def test_sum_of_another_dimension_is_refused():
    for dimension in (1, DIMENSION - 1, DIMENSION + 1):
        with pytest.raises(ValueError, match="dimension"):
            MECHANISM.release(UpdateSum.zeros(dimension), bits=stream(1))


def test_released_update_is_made_by_a_mechanism_alone():
    for door in (None, object(), MECHANISM, True):
        with pytest.raises(TypeError, match="only a mechanism"):
            ReleasedUpdate(door, np.zeros(3), 1.0, 1.0)


def test_released_values_are_read_only():
    released = MECHANISM.release(UpdateSum.zeros(DIMENSION), bits=stream(1))
    assert isinstance(released, ReleasedUpdate)
    assert released.values.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        released.values[0] = 0.0
    with pytest.raises(AttributeError):
        released.values = np.zeros(DIMENSION)  # type: ignore[misc]


def test_release_leaves_the_sum_as_it_was():
    total = UpdateSum.zeros(DIMENSION)
    MECHANISM.release(total, bits=stream(1))
    assert not total.total.any()


def test_event_is_the_documented_one_and_reads_no_data():
    assert MECHANISM.event() == PoissonGaussianEvent(0.05, 1.3)
    fixed = dataclasses.replace(MECHANISM, sampler=FixedSizeSampler(1000, 50))
    assert fixed.event() == FixedSizeGaussianEvent(1000, 50, 1.3)


def test_accounted_noise_is_never_above_the_noise_that_is_added():
    for multiplier in (0.3333, 1 / 3, 0.8374, 1.0291, 59.9999):
        mechanism = dataclasses.replace(MECHANISM, noise_multiplier=multiplier)
        event = mechanism.event()
        added = Fraction(mechanism.noise_scale, mechanism.grid_steps)
        assert Fraction(event.noise_multiplier) <= added


def test_noise_norm_is_that_of_a_release_of_nothing():
    assert np.linalg.norm(release([], key=5)) == pytest.approx(MECHANISM.noise_norm, rel=0.02)


# Adaptive clipping: one vector, one noise, one event


def adaptive_release(norms: list[float], *, norm: float, key: int) -> ReleasedUpdate:
    direction = np.random.default_rng(1).normal(size=SMALL.dimension)
    direction /= np.linalg.norm(direction)
    total = UpdateSum.zeros(SMALL.sum_dimension)
    for length in norms:
        total.add(
            clip_with_bit(
                length * direction,
                clipping_norm=norm,
                grid_steps=ADAPTIVE.grid_steps,
                bit_steps=ADAPTIVE.bit_steps,
            )
        )
    return SMALL.release(total, bits=stream(key), clipping_norm=norm)


def test_update_and_clip_bit_share_the_norm_of_one_unit():
    point = clip_with_bit(
        np.ones(100), clipping_norm=0.5, grid_steps=1 << 20, bit_steps=ADAPTIVE.bit_steps
    )
    assert 0.9999 * (1 << 40) < sum_of_squares(point) <= 1 << 40
    assert point[-1] == -ADAPTIVE.bit_steps


def test_the_event_of_adaptive_clipping_is_that_of_one_gaussian():
    assert ADAPTIVE.event() == MECHANISM.event()


def test_the_split_of_the_noise_is_the_published_one():
    share = ADAPTIVE.update_steps / ADAPTIVE.grid_steps
    split = (1.3**-2 - (2 * QUANTILE.bit_noise) ** -2) ** -0.5
    assert 1.3 / share == pytest.approx(split, rel=1e-6)
    bit_noise = ADAPTIVE.noise_scale / (2 * ADAPTIVE.bit_steps)
    assert QUANTILE.bit_noise <= bit_noise == pytest.approx(QUANTILE.bit_noise, rel=1e-5)


@pytest.mark.parametrize("norm", [0.05, 2.0])
def test_noise_follows_the_norm_that_clipped(norm):
    total = UpdateSum.zeros(DIMENSION + 1)
    total.add(np.append(np.zeros(DIMENSION, dtype=np.int64), -50 * ADAPTIVE.bit_steps))
    released = ADAPTIVE.release(total, bits=stream(5), clipping_norm=norm)
    assert released.next_clipping_norm > 1.05 * norm
    share = ADAPTIVE.update_steps / ADAPTIVE.grid_steps
    std = 1.3 * norm / share / 50
    assert scale_p_value(released.values, std) > P_THRESHOLD
    assert scale_p_value(released.values, std * released.next_clipping_norm / norm) < P_THRESHOLD


@pytest.mark.parametrize(("length", "moves"), [(50.0, 1), (0.001, -1)])
def test_the_norm_rises_when_all_are_clipped_and_falls_when_nobody_is(length, moves):
    norm = 0.5
    for round in range(20):
        norm = adaptive_release([length] * 50, norm=norm, key=100 + round).next_clipping_norm
    assert norm == pytest.approx(0.5 * math.exp(moves * 0.1 * 20), rel=0.25)


def test_the_norm_finds_the_quantile_of_five_distributions():
    for seed, spread in enumerate((0.1, 0.3, 0.5, 0.8, 1.2)):
        lengths = np.exp(np.random.default_rng(seed).normal(0, spread, size=50))
        norm = 0.1
        for round in range(60):
            norm = adaptive_release(
                list(lengths), norm=norm, key=1000 * seed + round
            ).next_clipping_norm
        assert 0.35 < np.mean(lengths <= norm) < 0.65


def test_a_norm_that_the_plan_fixed_cannot_be_changed():
    with pytest.raises(ValueError, match="fixed by the plan"):
        MECHANISM.release(UpdateSum.zeros(DIMENSION), bits=stream(1), clipping_norm=0.4)

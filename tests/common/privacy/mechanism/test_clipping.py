"""Clipping: no update, however odd, becomes a point longer than K; checked in Python integers."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feddp.common.privacy.mechanism.clipping import clip_to_grid, is_within, sum_of_squares

GRIDS = [1 << 20, 1 << 22, 1 << 24]

odd_floats32 = st.one_of(
    st.floats(width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 3e38, -3e38, 1e-45, 1.1754944e-38]),
).map(np.float32)
odd_floats64 = st.one_of(
    st.floats(),
    st.sampled_from([math.nan, math.inf, -0.0, 3e38, 1e154, 1e308, 5e-324, 2.3e-308, 1 / 3]),
)
updates = st.one_of(
    hnp.arrays(np.float32, st.integers(0, 40), elements=odd_floats32),
    hnp.arrays(np.float64, st.integers(0, 40), elements=odd_floats64),
)
tame_updates = st.one_of(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-3, 3, width=32)),
    hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-3, 3)),
)
clipping_norms = st.floats(1e-6, 1e6)
grids = st.sampled_from(GRIDS)


def exact_squares(point: np.ndarray) -> int:
    return sum(int(entry) ** 2 for entry in point)


@settings(max_examples=400)
@given(updates, clipping_norms, grids)
@example(np.full(7, 3e38, np.float32), 0.5, 1 << 24)
@example(np.full(9, 1e-45, np.float32), 1e-6, 1 << 24)
@example(np.array([math.nan, 1.0]), 1.0, 1 << 20)
@example(np.array([1.0]), 5e-324, 1 << 20)
@example(np.array([1e-200, 1e-200]), 1e-300, 1 << 20)
def test_squares_of_any_update_add_up_to_at_most_k_squared(update, clipping_norm, grid_steps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning in a log would tell of some user's odd update
        point = clip_to_grid(update, clipping_norm=clipping_norm, grid_steps=grid_steps)
    assert point.dtype == np.int64
    assert point.shape == update.shape
    assert exact_squares(point) <= grid_steps**2
    if not np.isfinite(update).all():
        assert not point.any()


@pytest.mark.parametrize("dimension", [1, 2, 3, 100, 5000, 70_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norm_bound_is_exact_for_long_and_for_equal_entries(dimension, dtype):
    rng = np.random.default_rng(dimension)
    draws = (np.ones(dimension), rng.normal(size=dimension), rng.standard_cauchy(dimension))
    for update in (100 * draw for draw in draws):
        point = clip_to_grid(update.astype(dtype), clipping_norm=0.37, grid_steps=1 << 24)
        assert exact_squares(point) <= (1 << 24) ** 2
        # A clipped update reaches the bound but for the truncation, so nothing is lost needlessly.
        assert exact_squares(point) >= ((1 << 24) - math.isqrt(dimension) - 2) ** 2


def just_outside(grid_steps: int) -> np.ndarray:
    """Four integers whose squares add up to K^2 + 1."""
    wanted = grid_steps**2 + 1
    for first in range(grid_steps // 2, 0, -1):
        for second in range(first, first - 1000, -1):
            left = wanted - first**2 - second**2
            third = math.isqrt(left)
            fourth = math.isqrt(left - third**2)
            if third**2 + fourth**2 == left:
                return np.array([first, second, third, fourth])
    raise AssertionError(f"no four squares found for {wanted}")


# From K = 2^27 on, sqrt(K^2 + 1) / K is 1 in float64: no float norm sees that this is outside.
# Grids that fine are not used; the exact check must not need to know.
@pytest.mark.parametrize("grid_steps", [1 << 20, 1 << 24, 1 << 28])
def test_update_whose_float_norm_is_too_small_by_rounding_still_ends_within(grid_steps):
    outside = just_outside(grid_steps)
    assert exact_squares(outside) == grid_steps**2 + 1
    point = clip_to_grid(outside / grid_steps, clipping_norm=1.0, grid_steps=grid_steps)
    assert exact_squares(point) <= grid_steps**2
    assert np.abs(outside - point).max() <= 1  # shrunk by a step, not dropped


@given(tame_updates, st.floats(0.01, 100.0), grids)
def test_unclipped_update_is_off_by_less_than_one_step_toward_zero(update, clipping_norm, grid):
    norm = float(np.linalg.norm(update.astype(np.float64)))
    assume(norm < clipping_norm * (1 - 1e-9))
    point = clip_to_grid(update, clipping_norm=clipping_norm, grid_steps=grid)
    for entry, steps in zip(update.tolist(), point.tolist(), strict=True):
        exact = Fraction(entry) * grid / Fraction(clipping_norm)
        assert abs(exact - steps) < 1
        # Toward zero, but for the rounding of one float64 division.
        assert abs(steps) <= abs(exact) * (1 + Fraction(1, 1 << 52))


@given(tame_updates, st.floats(0.01, 1.0), grids)
def test_clipped_update_keeps_its_direction(update, clipping_norm, grid_steps):
    values = update.astype(np.float64)
    norm = float(np.linalg.norm(values))
    assume(norm > clipping_norm)
    point = clip_to_grid(update, clipping_norm=clipping_norm, grid_steps=grid_steps)
    assert np.abs(point - values / norm * grid_steps).max() < 1 + 1e-6


@given(tame_updates, grids)
def test_opposite_update_gives_opposite_point(update, grid_steps):
    one = clip_to_grid(update, clipping_norm=0.7, grid_steps=grid_steps)
    other = clip_to_grid(-update, clipping_norm=0.7, grid_steps=grid_steps)
    assert np.array_equal(one, -other)


def test_entries_are_truncated_and_not_rounded():
    update = np.array([0.75, -0.75, 0.25]) / 1024
    point = clip_to_grid(update, clipping_norm=1.0, grid_steps=1024)
    assert point.tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 3, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_non_finite_update_contributes_nothing(bad, position, dtype):
    update = np.ones(10, dtype)
    update[position] = bad
    point = clip_to_grid(update, clipping_norm=1.0, grid_steps=1 << 20)
    assert point.shape == (10,)
    assert not point.any()


def test_zero_and_negative_zero_give_zero():
    point = clip_to_grid(np.array([0.0, -0.0]), clipping_norm=1.0, grid_steps=1 << 20)
    assert point.tolist() == [0, 0]


def test_largest_float32_entries_are_clipped_and_not_dropped():
    point = clip_to_grid(np.full(4, 3e38, np.float32), clipping_norm=1.0, grid_steps=1 << 20)
    assert point.tolist() == [1 << 19] * 4


def test_squares_beyond_float64_contribute_nothing():
    point = clip_to_grid(np.full(4, 1e200), clipping_norm=1.0, grid_steps=1 << 20)
    assert not point.any()


def test_the_callers_update_is_left_as_it_was():
    update = np.array([3.0, 4.0])
    clip_to_grid(update, clipping_norm=1.0, grid_steps=1 << 20)
    assert update.tolist() == [3.0, 4.0]


wide_integers = hnp.arrays(
    np.int64,
    st.integers(0, 30),
    elements=st.one_of(
        st.integers(-(1 << 60), 1 << 60),
        st.sampled_from([-(1 << 63), (1 << 63) - 1, 1 << 48, 1 << 24, (1 << 24) - 1, -1, 0]),
    ),
)


@given(wide_integers)
def test_sum_of_squares_is_exact(point):
    assert sum_of_squares(point) == exact_squares(point)


@pytest.mark.parametrize("entry", [(1 << 24) - 1, (1 << 48) - 1, 1 << 60, -(1 << 63)])
@pytest.mark.parametrize("length", [1 << 14, (1 << 14) + 1, 50_000])
def test_sum_of_squares_does_not_overflow_on_long_vectors(entry, length):
    assert sum_of_squares(np.full(length, entry, dtype=np.int64)) == length * entry**2


@given(wide_integers)
def test_is_within_agrees_with_python_integers_at_the_boundary(point):
    root = math.isqrt(exact_squares(point))
    for limit in (root - 1, root, root + 1):
        if limit >= 0:
            assert is_within(point, limit) == (exact_squares(point) <= limit**2)


def test_one_step_beyond_the_limit_is_outside():
    assert is_within(np.array([3, -4]), 5)
    assert not is_within(np.array([3, -4, 1]), 5)
    assert not is_within(np.array([-6]), 5)

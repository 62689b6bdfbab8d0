"""Correlated noise: exact rows, the sensitivity that scales the noise, what cannot be made."""

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from correlated_runs import (
    BANDED,
    CYCLIC,
    ENTROPY,
    KEY,
    MECHANISM,
    MECHANISMS,
    NUM_ROUNDS,
    ROOT,
    matrix_of,
    noise_of,
    random_sums,
    run,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

import feddp
from feddp.common.privacy.mechanism.clipping import clip_to_grid
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    ZERO_OUT,
    GaussianEvent,
    PoissonGaussianEvent,
)
from feddp.common.privacy.mechanism.gaussian import ReleasedUpdate
from feddp.common.privacy.mechanism.participation import CyclicPoisson, FixedSeparation
from feddp.common.privacy.mechanism.summation import UpdateSum


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_rows_are_the_sums_times_the_matrix_and_noise_exactly(mechanism):
    sums = random_sums(1, mechanism)
    _, rows, _ = run(mechanism, sums)
    noise = np.array([noise_of(mechanism, noised) for noised in rows])
    made = np.array([noised.values for noised in rows])
    assert np.array_equal(made, matrix_of(mechanism) @ sums + noise)
    assert made.dtype == np.int64


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_released_updates_are_the_dense_inverse_of_the_rows(mechanism):
    released, rows, _ = run(mechanism, random_sums(2, mechanism))
    unit = mechanism.clipping_norm / mechanism.grid_steps / mechanism.expected_cohort_size
    solved = linalg.solve_triangular(
        matrix_of(mechanism).astype(float), np.array([noised.values for noised in rows]), lower=True
    )
    np.testing.assert_allclose(released, solved * unit, rtol=0, atol=1e-12 * np.abs(released).max())


def test_released_updates_are_the_sums_over_the_cohort_and_correlated_noise():
    sums = random_sums(3, MECHANISM)
    released, rows, _ = run(MECHANISM, sums)
    noise = np.array([noise_of(MECHANISM, noised) for noised in rows]).astype(float)
    correlated = np.linalg.solve(matrix_of(MECHANISM).astype(float), noise)
    expected = (sums + correlated) * (0.5 / (1 << 20) / 250)
    np.testing.assert_allclose(released, expected, rtol=0, atol=1e-12 * np.abs(released).max())


def test_released_updates_are_read_only_and_of_the_one_type():
    update, noised = MECHANISM.release(
        UpdateSum.zeros(40),
        history=MECHANISM.start(),
        master_key=KEY,
        row=1,
        attempt=1,
        entropy=ENTROPY,
    )
    assert type(update) is ReleasedUpdate
    assert update.next_clipping_norm == 0.5
    assert update.values.dtype == np.float64
    for values in (update.values, noised.values):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1


def test_the_door_is_opened_by_the_mechanisms_alone():
    root = Path(feddp.__file__).parent
    sources = [
        p
        for top in ("common", "client", "server", "simulations")
        for p in (root / top).rglob("*.py")
    ]
    users = {path.name for path in sources if "open_door" in path.read_text(encoding="utf-8")}
    assert users == {"gaussian.py", "correlated.py"}


def moved_rows(mechanism, sums, points):
    """Squared norm of what the points move in all rows; read off the released rows exactly."""
    means = []
    for changed in (sums, sums + points):
        _, rows, _ = run(mechanism, changed)
        means.append([noised.values - noise_of(mechanism, noised) for noised in rows])
    difference = np.array(means[1]) - np.array(means[0])
    return int(np.sum(difference.astype(object) ** 2))


@pytest.mark.parametrize("mechanism", [MECHANISM, BANDED])
@pytest.mark.parametrize("seed", range(6))
def test_one_user_moves_all_rows_by_at_most_the_sensitivity(mechanism, seed):
    rng = np.random.default_rng(seed)
    mechanism = dataclasses.replace(mechanism, num_spare=0)
    points = np.zeros((NUM_ROUNDS, mechanism.dimension), dtype=np.int64)
    row = int(rng.integers(0, 3))
    direction = rng.normal(size=mechanism.dimension)
    while row < NUM_ROUNDS:
        update = direction if seed % 2 else rng.normal(size=mechanism.dimension)
        points[row] = clip_to_grid(update, clipping_norm=0.5, grid_steps=1 << 20)
        row += 4 + int(rng.integers(0, 2))
    squared = mechanism.participation.squared_sensitivity(
        mechanism.coefficients, num_rows=NUM_ROUNDS, num_spare=0
    )
    assert moved_rows(mechanism, random_sums(seed, mechanism), points) <= squared << 40


@pytest.mark.parametrize("mechanism", [MECHANISM, BANDED])
def test_the_worst_user_reaches_the_sensitivity(mechanism):
    # So a scale for one participation, or for any smaller bound, would be too little.
    points = np.zeros((NUM_ROUNDS, mechanism.dimension), dtype=np.int64)
    points[::4, 0] = mechanism.grid_steps
    squared = mechanism.participation.squared_sensitivity(
        mechanism.coefficients, num_rows=NUM_ROUNDS, num_spare=0
    )
    assert moved_rows(mechanism, random_sums(9, mechanism), points) == squared << 40


def test_one_cyclic_participation_moves_all_rows_by_its_norm():
    points = np.zeros((NUM_ROUNDS, CYCLIC.dimension), dtype=np.int64)
    points[5, 3] = -CYCLIC.grid_steps
    squared = CYCLIC.participation.squared_sensitivity(
        CYCLIC.coefficients, num_rows=NUM_ROUNDS, num_spare=0
    )
    assert moved_rows(CYCLIC, random_sums(9, CYCLIC), points) == squared << 40


@given(st.floats(1e-3, 60), st.integers(16, 24), st.sampled_from([MECHANISM, BANDED, CYCLIC]))
def test_noise_scale_is_rounded_up_exactly(noise_multiplier, bits, mechanism):
    mechanism = dataclasses.replace(
        mechanism, noise_multiplier=noise_multiplier, grid_steps=1 << bits
    )
    squared = mechanism.participation.squared_sensitivity(
        mechanism.coefficients, num_rows=NUM_ROUNDS, num_spare=2
    )
    exact = (Fraction(noise_multiplier) * (1 << bits)) ** 2 * squared
    assert (mechanism.noise_scale - 1) ** 2 < exact <= mechanism.noise_scale**2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"noise_multiplier": 0.0}, "must be > 0"),
        ({"noise_multiplier": math.nan}, "must be > 0"),
        ({"clipping_norm": -1.0}, "must be > 0"),
        ({"expected_cohort_size": math.inf}, "must be > 0"),
        ({"num_units": 0}, ">= 1"),
        ({"dimension": 0}, ">= 1"),
        ({"num_rounds": 0}, ">= 1"),
        ({"num_spare": -1}, ">= 1"),
        ({"grid_steps": 3}, "power of two"),
        ({"shift": 0}, "shift"),
        ({"shift": 17}, "shift"),
        ({"shift": 9}, "2\\^shift"),
        ({"coefficients": ()}, "coefficients"),
        ({"coefficients": (256, 128, 129)}, "increase"),
        ({"coefficients": (256, 128, -1)}, "above 0"),
        ({"coefficients": (256, 128, 0)}, "above 0"),
        ({"coefficients": (256, 128.0)}, "integers"),
        ({"coefficients": (256,) * 13}, "coefficients"),
        ({"participation": FixedSeparation(4, 4)}, "do not fit"),
        ({"participation": CyclicPoisson(4, 1.0)}, "bands"),
        ({"coefficients": (256, 9), "participation": CyclicPoisson(4, 0.5)}, "q' N"),
        ({"noise_multiplier": 1e-12}, "noise scale"),
        ({"noise_multiplier": 1e9}, "noise scale"),
        ({"num_units": 1 << 40}, "2\\^62"),
    ],
)
def test_invalid_combinations_cannot_be_made(change, problem):
    with pytest.raises(ValueError, match=problem):
        dataclasses.replace(MECHANISM, **change)


def test_sums_at_the_bound_do_not_overflow():
    mechanism = dataclasses.replace(MECHANISM, num_units=1 << 31, expected_cohort_size=1.0)
    sums = np.full((12, 40), (1 << 31) * mechanism.grid_steps, dtype=np.int64)
    _, rows, _ = run(mechanism, sums)
    held = matrix_of(mechanism).astype(object) @ sums.astype(object)
    noise = np.array([noise_of(mechanism, noised) for noised in rows]).astype(object)
    assert np.array_equal(np.array([r.values for r in rows]).astype(object), held + noise)
    with pytest.raises(ValueError, match="2\\^62"):
        dataclasses.replace(mechanism, num_units=1 << 33)


def test_sums_that_only_hostile_nodes_make_do_not_end_the_run():
    sums = random_sums(3, MECHANISM)
    sums[2:5, :2] = [MECHANISM.max_sum, -MECHANISM.max_sum]
    assert MECHANISM.max_sum > MECHANISM.num_units * MECHANISM.grid_steps
    _, rows, _ = run(MECHANISM, sums)
    assert MECHANISM.replay(rows, master_key=KEY).next_row == NUM_ROUNDS + 1


def test_the_whole_run_is_one_gaussian_and_its_beginning_costs_less():
    assert MECHANISM.event() == (GaussianEvent(1.3), 1)
    assert MECHANISM.relation == ZERO_OUT
    multipliers = [MECHANISM.event(rows)[0].noise_multiplier for rows in range(1, 13)]
    assert multipliers[-1] == 1.3
    assert multipliers == sorted(multipliers, reverse=True)
    spare = {"num_spare": MECHANISM.num_spare}
    for rows, multiplier in enumerate(multipliers, start=1):
        squared = MECHANISM.participation.squared_sensitivity(ROOT, num_rows=rows, **spare)
        # Never more than the noise over what these rows hold.
        assert multiplier * math.sqrt(squared) * (1 << 20) <= MECHANISM.noise_scale * (1 + 1e-15)
        assert multiplier * math.sqrt(squared) * (1 << 20) > MECHANISM.noise_scale * (1 - 1e-8)


def test_a_cyclic_run_is_one_sampled_gaussian_per_turn_and_spare_attempt():
    cyclic = dataclasses.replace(
        CYCLIC, expected_cohort_size=25.0, participation=CyclicPoisson(4, 0.1)
    )
    assert cyclic.event() == (PoissonGaussianEvent(0.1, 1.3), 3 + 2)
    assert cyclic.relation == ADD_OR_REMOVE_ONE
    event, times = cyclic.event(5)
    assert times == 2 + 2
    assert event.noise_multiplier == 1.3
    assert cyclic.event(1)[0].noise_multiplier > 1.3


@pytest.mark.parametrize("rows", [0, 13, -1])
def test_a_meter_outside_the_run_is_refused(rows):
    with pytest.raises(ValueError, match="rows"):
        MECHANISM.event(rows)

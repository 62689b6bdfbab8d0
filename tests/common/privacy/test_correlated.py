"""Correlated noise: exact rows, the right covariance, a history that replays bit for bit."""

import copy
import dataclasses
import math
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats

import common
from common.errors import FeddpError
from common.privacy.accounting import epsilon
from common.privacy.bridge import bridge_delta
from common.privacy.clipping import clip_to_grid
from common.privacy.correlated import CorrelatedGaussian, NoisedRow
from common.privacy.events import (
    ADD_OR_REMOVE_ONE,
    ZERO_OUT,
    GaussianEvent,
    PoissonGaussianEvent,
)
from common.privacy.keys import MasterKey
from common.privacy.mechanism import ReleasedUpdate
from common.privacy.noise import discrete_gaussian
from common.privacy.participation import CyclicPoisson, FixedSeparation
from common.privacy.summation import UpdateSum
from common.privacy.toeplitz import (
    best_banded,
    best_blt,
    prefix_error,
    quantise,
    sensitivity,
    square_root,
)

P_THRESHOLD = 1e-3
NUM_ROUNDS = 12
ROOT = quantise(square_root(NUM_ROUNDS), shift=8)
MECHANISM = CorrelatedGaussian(
    num_units=1000,
    expected_cohort_size=250.0,
    clipping_norm=0.5,
    noise_multiplier=1.3,
    grid_steps=1 << 20,
    dimension=40,
    coefficients=ROOT,
    num_rounds=NUM_ROUNDS,
    num_spare=2,
    participation=FixedSeparation(separation=4, max_participations=3),
)
BANDED = dataclasses.replace(MECHANISM, coefficients=ROOT[:4])
CYCLIC = dataclasses.replace(
    BANDED, participation=CyclicPoisson(num_groups=4, sampling_probability=1.0)
)
MECHANISMS = [MECHANISM, BANDED, CYCLIC, dataclasses.replace(MECHANISM, coefficients=ROOT[:1])]
KEY = MasterKey(bytes(range(32)), run=b"run")
ENTROPY = bytes(32)


def random_sums(seed, mechanism, *, users=20):
    """One update sum per row, of plausible size; int64, shape (rows, P)."""
    largest = users * mechanism.grid_steps
    shape = (mechanism.num_rounds, mechanism.dimension)
    return np.random.default_rng(seed).integers(-largest, largest, shape)


def run(mechanism, sums, *, key=KEY, history=None, attempts=None):
    """Releases a row per sum; (released values, noised rows, history)."""
    history = history or mechanism.start()
    released, rows = [], []
    for total in sums:
        row = history.next_row
        update, noised = mechanism.release(
            UpdateSum(total.copy()),
            history=history,
            master_key=key,
            row=row,
            attempt=(attempts or {}).get(row, 1),
            entropy=ENTROPY,
        )
        history.append(noised, master_key=key)
        released.append(update.values)
        rows.append(noised)
    return np.array(released), rows, history


def noise_of(mechanism, noised, *, key=KEY):
    bits = key.noise_bits(row=noised.row, attempt=noised.attempt, nonce=noised.nonce)
    return discrete_gaussian(bits, mechanism.noise_scale, mechanism.dimension)


def matrix_of(mechanism):
    padded = np.zeros(mechanism.num_rounds, dtype=np.int64)
    padded[: len(mechanism.coefficients)] = mechanism.coefficients
    return np.tril(linalg.toeplitz(padded))


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
    root = Path(common.__file__).parents[1]
    sources = [
        p
        for top in ("common", "client", "server", "simulations")
        for p in (root / top).rglob("*.py")
    ]
    users = {path.name for path in sources if "open_door" in path.read_text(encoding="utf-8")}
    assert users == {"mechanism.py", "correlated.py"}


SMALL = dataclasses.replace(
    MECHANISM,
    num_rounds=6,
    coefficients=ROOT[:6],
    num_spare=0,
    participation=FixedSeparation(2, 3),
    dimension=120_000,
)


@pytest.fixture(scope="module")
def correlated_noise():
    """Noise of six rows without users, in units of z * C / divisor; shape (6, 120,000)."""
    zeros = np.zeros((6, SMALL.dimension), dtype=np.int64)
    released, _, _ = run(SMALL, zeros)
    return released / (SMALL.noise_multiplier * SMALL.clipping_norm / SMALL.expected_cohort_size)


def covariance_p_value(noise, coefficients, norm):
    """Whether the rows of noise have the covariance norm^2 (C^T C)^-1.

    C noise / norm must have unit covariance. Its diagonal times the number of draws is chi-square;
    correlations are normal with standard deviation 1 / sqrt(draws). Two-sided, Bonferroni.
    """
    draws = noise.shape[1]
    white = np.tril(linalg.toeplitz(coefficients)) @ noise / norm
    squares = np.sum(white**2, axis=1)
    diagonal = 2 * np.minimum(stats.chi2.sf(squares, draws), stats.chi2.cdf(squares, draws))
    pairs = (white @ white.T)[np.triu_indices(len(white), 1)] / math.sqrt(draws)
    p_values = np.concatenate([diagonal, 2 * stats.norm.sf(np.abs(pairs))])
    return float(min(1.0, p_values.min() * len(p_values)))


TRUE = np.array(ROOT[:6]) / 256
NORM = sensitivity(TRUE, separation=2, max_participations=3)


def test_noise_has_the_covariance_of_the_matrix(correlated_noise):
    assert covariance_p_value(correlated_noise, TRUE, NORM) > P_THRESHOLD
    empirical = np.cov(correlated_noise)
    matrix = np.tril(linalg.toeplitz(TRUE))
    exact = NORM**2 * np.linalg.inv(matrix.T @ matrix)
    np.testing.assert_allclose(empirical, exact, atol=0.02 * exact.max())


# A standard deviation of 120,000 draws is known to 0.2 %, a correlation to 0.003.
@pytest.mark.parametrize("wrong", range(1, 6))
def test_a_wrong_coefficient_is_rejected(correlated_noise, wrong):
    mutant = TRUE.copy()
    mutant[wrong] += 0.02
    assert covariance_p_value(correlated_noise, mutant, NORM) < P_THRESHOLD


@pytest.mark.parametrize("factor", [2 / 3, 0.99, 1.01, 3 / 2])
def test_a_wrong_scale_is_rejected(correlated_noise, factor):
    assert covariance_p_value(correlated_noise, TRUE, NORM * factor) < P_THRESHOLD


def test_the_sensitivity_of_one_participation_is_rejected(correlated_noise):
    one = sensitivity(TRUE, separation=2, max_participations=1)
    assert covariance_p_value(correlated_noise, TRUE, one) < P_THRESHOLD


def test_independent_noise_is_rejected(correlated_noise):
    assert covariance_p_value(correlated_noise, np.eye(6)[0], NORM) < P_THRESHOLD


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


@pytest.mark.parametrize("stop", [0, 1, 5, 11])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_resumed_run_is_the_straight_run_bit_for_bit(mechanism, stop):
    sums = random_sums(4, mechanism)
    straight, rows, _ = run(mechanism, sums)
    kept = [NoisedRow(r.row, r.attempt, bytes(r.nonce), r.values.copy()) for r in rows[:stop]]
    history = mechanism.replay(kept, master_key=MasterKey(bytes(range(32)), run=b"run"))
    resumed, later, _ = run(mechanism, sums[stop:], history=history)
    assert resumed.tobytes() == straight[stop:].tobytes()
    assert [r.values.tobytes() for r in later] == [r.values.tobytes() for r in rows[stop:]]


def test_a_burned_attempt_has_its_own_noise_and_leaves_no_trace():
    sums = random_sums(5, MECHANISM)
    _, rows, history = run(MECHANISM, sums[:3])
    burned = MECHANISM.release(
        UpdateSum(sums[11].copy()),
        history=history,
        master_key=KEY,
        row=4,
        attempt=1,
        entropy=ENTROPY,
    )[1]
    _, (answer,), _ = run(MECHANISM, sums[3:4], history=history, attempts={4: 2})
    assert np.mean(noise_of(MECHANISM, burned) == noise_of(MECHANISM, answer)) < 0.05
    after, later, _ = run(MECHANISM, sums[4:], history=history)
    clean = MECHANISM.replay([*rows, answer], master_key=KEY)
    again, _, _ = run(MECHANISM, sums[4:], history=clean)
    assert after.tobytes() == again.tobytes()
    held = matrix_of(MECHANISM) @ sums
    assert np.array_equal(later[0].values - noise_of(MECHANISM, later[0]), held[4])


def test_a_rolled_back_ledger_never_uses_one_noise_for_two_sums():
    sums = random_sums(6, MECHANISM)
    first, second = (run(MECHANISM, sums[i : i + 1])[1][0] for i in (0, 1))
    same = run(MECHANISM, sums[:1])[1][0]
    assert (first.row, first.attempt) == (second.row, second.attempt)
    assert np.mean(noise_of(MECHANISM, first) == noise_of(MECHANISM, second)) < 0.05
    assert np.array_equal(first.values, same.values)


def test_noise_of_all_rows_and_attempts_is_different():
    _, rows, _ = run(MECHANISM, np.zeros((12, 40), dtype=np.int64))
    _, again, _ = run(MECHANISM, np.zeros((12, 40), dtype=np.int64), attempts={3: 2, 4: 3})
    made = [tuple(noise_of(MECHANISM, noised).tolist()) for noised in [*rows, *again[2:4]]]
    assert len(set(made)) == 14


def test_a_lost_key_starts_a_new_segment_without_the_old_sums():
    sums = random_sums(7, MECHANISM)
    run(MECHANISM, sums[:6])
    new = MasterKey(bytes(32), run=b"run")
    history = MECHANISM.start(first_row=7)
    released, rows, _ = run(MECHANISM, sums[6:], key=new, history=history)
    noise = np.array([noise_of(MECHANISM, noised, key=new) for noised in rows])
    block = matrix_of(MECHANISM)[:6, :6]
    assert np.array_equal(np.array([r.values for r in rows]), block @ sums[6:] + noise)
    replayed = MECHANISM.replay(rows[:2], master_key=new, first_row=7)
    again, _, _ = run(MECHANISM, sums[8:], key=new, history=replayed)
    assert again.tobytes() == released[2:].tobytes()


@pytest.mark.parametrize(
    "other",
    [MasterKey(bytes(32), run=b"run"), MasterKey(bytes(range(32)), run=b"other")],
)
def test_rows_of_another_key_or_run_are_refused(other):
    _, rows, _ = run(MECHANISM, random_sums(8, MECHANISM))
    with pytest.raises(FeddpError, match="not noised with this master key"):
        MECHANISM.replay(rows, master_key=other)


@pytest.mark.parametrize(
    "change",
    [
        {"values": lambda row: row.values + 1},
        {"values": lambda row: row.values[:-1]},
        {"values": lambda row: row.values.astype(np.float64)},
        {"nonce": lambda row: bytes(32)},
        {"attempt": lambda row: 2},
        {"row": lambda row: 2},
    ],
)
def test_a_row_that_was_changed_is_refused_and_changes_nothing(change):
    _, rows, _ = run(MECHANISM, random_sums(8, MECHANISM))
    ((name, changed),) = change.items()
    history = MECHANISM.start()
    with pytest.raises(FeddpError, match="Row"):
        history.append(dataclasses.replace(rows[0], **{name: changed(rows[0])}), master_key=KEY)
    history.append(rows[0], master_key=KEY)
    assert history.next_row == 2


def test_rows_out_of_order_are_refused():
    _, rows, _ = run(MECHANISM, random_sums(8, MECHANISM))
    with pytest.raises(FeddpError, match="does not follow"):
        MECHANISM.replay([rows[0], rows[2]], master_key=KEY)
    with pytest.raises(FeddpError, match="does not follow"):
        MECHANISM.replay([*rows, rows[-1]], master_key=KEY)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"row": 2}, "the next is 1"),
        ({"attempt": 0}, "attempt 0"),
        ({"attempt": 4}, "attempt 4"),
        ({"total": UpdateSum.zeros(39)}, "dimension"),
    ],
)
def test_a_release_that_does_not_follow_is_refused(change, problem):
    arguments = {"total": UpdateSum.zeros(40), "row": 1, "attempt": 1, **change}
    with pytest.raises(ValueError, match=problem):
        MECHANISM.release(
            arguments.pop("total"),
            history=MECHANISM.start(),
            master_key=KEY,
            entropy=ENTROPY,
            **arguments,
        )


def test_no_row_is_released_beyond_the_last():
    _, _, history = run(MECHANISM, random_sums(8, MECHANISM))
    with pytest.raises(ValueError, match="row 13"):
        MECHANISM.release(
            UpdateSum.zeros(40),
            history=history,
            master_key=KEY,
            row=13,
            attempt=1,
            entropy=ENTROPY,
        )


def test_history_shows_itself_nowhere():
    _, _, history = run(MECHANISM, random_sums(8, MECHANISM)[:2])
    assert repr(history) == "History(next_row=3, sensitive)"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="sensitive"):
            leak(history)


@pytest.mark.parametrize("first_row", [0, 13, -1])
def test_no_history_starts_outside_the_run(first_row):
    with pytest.raises(ValueError, match="first row"):
        MECHANISM.start(first_row)


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


def test_discrete_noise_costs_next_to_nothing():
    added = bridge_delta(num_charges=1000, dimension=10**6, noise_scale=1 << 28, epsilon=8.0)
    assert added < 1e-10
    assert dataclasses.replace(MECHANISM, noise_multiplier=1.0).noise_scale > 1 << 28
    assert MECHANISM.num_charges == 14


def test_noise_norm_is_that_of_the_last_released_update():
    mechanism = dataclasses.replace(MECHANISM, dimension=20_000)
    released, _, _ = run(mechanism, np.zeros((12, 20_000), dtype=np.int64))
    assert np.linalg.norm(released[-1]) == pytest.approx(mechanism.noise_norm, rel=0.03)
    assert np.linalg.norm(released[0]) < mechanism.noise_norm


@pytest.mark.parametrize("kind", ["banded", "blt"])
def test_prefix_sums_beat_independent_noise_by_the_predicted_factor(kind):
    rounds, users, run_of = 48, 40, {"separation": 8, "max_participations": 6}
    if kind == "banded":
        best = best_banded(num_rows=rounds, num_bands=8, **run_of)
    else:
        best = best_blt(num_rows=rounds, num_buffers=2, **run_of).coefficients(rounds)
    alone = np.eye(rounds)[0]
    rng = np.random.default_rng(11)
    points = rng.integers(-(1 << 12), 1 << 12, (users, 2000))
    sums = np.array([points[np.arange(users) % 8 == row % 8].sum(axis=0) for row in range(rounds)])
    measured, predicted = [], []
    for coefficients in (best, alone):
        mechanism = dataclasses.replace(
            MECHANISM,
            num_units=users,
            expected_cohort_size=5.0,
            dimension=2000,
            num_spare=0,
            num_rounds=rounds,
            coefficients=quantise(coefficients, shift=8),
            participation=FixedSeparation(8, 6),
        )
        unit = 0.5 / (1 << 20) / 5
        error = np.cumsum(run(mechanism, sums)[0], axis=0) - np.cumsum(sums, axis=0) * unit
        measured.append(math.sqrt(np.mean(error**2)) / (1.3 * 0.5 / 5))
        predicted.append(prefix_error(coefficients, **run_of).mean)
    assert measured == pytest.approx(predicted, rel=0.03)
    assert measured[1] > 1.9 * measured[0]


def test_cyclic_bands_reach_the_table_at_their_calibrated_noise():
    # N = 10,000, cohorts of 100, 1000 rounds, 32 bands, epsilon 8, delta 1e-6: 7.2 per clip.
    charges = [(PoissonGaussianEvent(0.32, 1.4672), 32)]
    assert 7.99 < epsilon(charges, delta=1e-6, relation=ADD_OR_REMOVE_ONE) <= 8
    best = best_banded(num_rows=1000, num_bands=32, separation=32, max_participations=1)
    error = prefix_error(best, separation=32, max_participations=1)
    assert 1.4672 * error.mean == pytest.approx(7.2, rel=5e-3)

"""Toeplitz matrices: golden numbers, brute force over all participations, best coefficients."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, optimize

from feddp.common.privacy.mechanism import toeplitz
from feddp.common.privacy.mechanism.toeplitz import (
    Blt,
    best_banded,
    best_blt,
    inverse,
    prefix_error,
    quantise,
    sensitivity,
    square_root,
    squared_errors,
    worst_column,
)

BLT = Blt(decays=(0.9, 0.5), scales=(0.3, 0.2))


def dense(coefficients):
    return np.tril(linalg.toeplitz(coefficients))


def patterns(num_rows, separation, max_participations):
    """All sets of rounds of one user."""
    for size in range(1, max_participations + 1):
        for chosen in itertools.combinations(range(num_rows), size):
            if all(b - a >= separation for a, b in itertools.pairwise(chosen)):
                yield list(chosen)


def brute_force_sensitivity(matrix, separation, max_participations):
    """sqrt of the largest sum of |C^T C| over a set of rounds; for any matrix."""
    gram = np.abs(matrix.T @ matrix)
    sets = patterns(len(matrix.T), separation, max_participations)
    return math.sqrt(max(gram[np.ix_(chosen, chosen)].sum() for chosen in sets))


def test_square_root_has_its_golden_coefficients_and_inverse():
    assert square_root(5).tolist() == [1, 0.5, 0.375, 0.3125, 0.2734375]
    assert inverse(square_root(5)).tolist() == [1, -1 / 2, -1 / 8, -1 / 16, -5 / 128]


def test_square_of_the_square_root_is_the_prefix_sum():
    matrix = dense(square_root(50))
    np.testing.assert_allclose(matrix @ matrix, np.tril(np.ones((50, 50))), atol=1e-12)


def test_blt_has_its_golden_coefficients_and_inverse():
    np.testing.assert_allclose(
        BLT.coefficients(6), [1, 0.5, 0.37, 0.293, 0.2437, 0.20933], rtol=1e-12
    )
    np.testing.assert_allclose(
        inverse(BLT.coefficients(6)), [1, -0.5, -0.12, -0.048, -0.0288, -0.02016], rtol=1e-12
    )


def test_inverse_of_one_buffer_has_its_closed_form():
    decay, scale = 0.9, 0.35
    golden = [1, *(-scale * (decay - scale) ** step for step in range(30))]
    made = inverse(Blt(decays=(decay,), scales=(scale,)).coefficients(31))
    np.testing.assert_allclose(made, golden, atol=1e-12)


@pytest.mark.parametrize("coefficients", [square_root(60), BLT.coefficients(60)])
def test_inverse_is_the_dense_inverse(coefficients):
    solved = linalg.inv(dense(coefficients))
    np.testing.assert_allclose(dense(inverse(coefficients)), solved, atol=1e-12)


def test_streaming_buffers_are_the_dense_inverse():
    noise = np.random.default_rng(1).normal(size=(200, 3))
    buffers, streamed = np.zeros((2, 3)), []
    decays, scales = np.array(BLT.decays)[:, None], np.array(BLT.scales)[:, None]
    for row in noise:
        streamed.append(row - np.sum(scales * buffers, axis=0))
        buffers = decays * buffers + streamed[-1]
    solved = dense(inverse(BLT.coefficients(200))) @ noise
    np.testing.assert_allclose(streamed, solved, atol=1e-12)


@pytest.mark.parametrize(
    ("decays", "scales"),
    [
        ((), ()),
        ((1.0,), (0.5,)),
        ((0.0,), (0.5,)),
        ((0.9,), (0.0,)),
        ((0.9,), (-0.1,)),
        ((0.9, 0.8), (0.6, 0.4)),  # sum of scales
        ((0.5,), (0.6,)),  # scale over decay
        ((0.9, 0.5), (0.3,)),
        ((math.nan,), (0.5,)),
    ],
)
def test_invalid_blt_cannot_be_made(decays, scales):
    with pytest.raises(ValueError, match=r"buffer|scales|zip"):
        Blt(decays=decays, scales=scales)


@given(st.lists(st.tuples(st.floats(0.05, 0.99), st.floats(0.01, 1)), min_size=1, max_size=4))
def test_every_valid_blt_keeps_its_guarantee(buffers):
    decays = [decay for decay, _ in buffers]
    excess = 1.01 * max(
        sum(scale for _, scale in buffers), sum(scale / decay for decay, scale in buffers)
    )
    coefficients = Blt(tuple(decays), tuple(s / excess for _, s in buffers)).coefficients(80)
    inverted = inverse(coefficients)[1:]
    assert np.all(np.diff(coefficients) <= 0)
    assert coefficients[-1] >= 0
    assert np.all(inverted <= 1e-12)
    assert np.all(np.diff(inverted) >= -1e-12)


@pytest.mark.parametrize(
    ("separation", "participations", "golden"),
    [
        (2, 6, 5.180275659),
        (3, 4, 3.658283259),
        (4, 3, 2.899591384),
        (2, 2, 2.363846245),
        (3, 2, 2.294860661),
        (4, 2, 2.238475635),
    ],
)
def test_square_root_has_its_golden_sensitivity(separation, participations, golden):
    made = sensitivity(square_root(12), separation=separation, max_participations=participations)
    assert made == pytest.approx(golden, abs=1e-9)


@pytest.mark.parametrize(
    ("separation", "participations", "golden"), [(3, 4, 3.433265408), (4, 3, 2.726235454)]
)
def test_blt_has_its_golden_sensitivity(separation, participations, golden):
    made = sensitivity(
        BLT.coefficients(12), separation=separation, max_participations=participations
    )
    assert made == pytest.approx(golden, abs=1e-9)


def test_blt_has_its_golden_errors():
    error = prefix_error(BLT.coefficients(12), separation=3, max_participations=4)
    assert (error.mean, error.maximum) == pytest.approx((4.414986, 4.915479), abs=1e-6)


def test_separate_bands_have_their_golden_sensitivity():
    banded = np.where(np.arange(12) < 4, BLT.coefficients(12), 0)
    assert sensitivity(banded, separation=4, max_participations=1) == pytest.approx(
        1.213568704, abs=1e-9
    )
    assert sensitivity(banded, separation=4, max_participations=3) == pytest.approx(
        2.101962654, abs=1e-9
    )


@pytest.mark.parametrize("num_rows", [1, 5, 9, 12])
@pytest.mark.parametrize("separation", [1, 2, 3, 5])
@pytest.mark.parametrize("participations", [1, 2, 3, 20])
def test_sensitivity_is_that_of_brute_force(num_rows, separation, participations):
    banded = np.where(np.arange(num_rows) < 3, square_root(num_rows), 0)
    for coefficients in (square_root(num_rows), BLT.coefficients(num_rows), banded):
        made = sensitivity(coefficients, separation=separation, max_participations=participations)
        oracle = brute_force_sensitivity(
            dense(coefficients), separation, min(participations, num_rows)
        )
        assert made == pytest.approx(oracle, rel=1e-12)


def test_sensitivity_of_one_participation_is_too_small_for_several():
    # The mutant that forgets all participations but one is off by more than a factor of 2 here.
    one = sensitivity(square_root(12), separation=3, max_participations=1)
    assert brute_force_sensitivity(dense(square_root(12)), 3, 4) > 2 * one


def test_restart_with_an_empty_history_is_no_more_sensitive():
    matrix = dense(BLT.coefficients(12))
    before = brute_force_sensitivity(matrix, 3, 4)
    for restart in range(1, 12):
        split = matrix.copy()
        split[restart:, :restart] = 0
        assert brute_force_sensitivity(split, 3, 4) <= before + 1e-12
    split = matrix.copy()
    split[5:, :5] = 0
    assert brute_force_sensitivity(split, 3, 4) == pytest.approx(2.768, abs=1e-3)


@pytest.mark.parametrize("coefficients", [[1.0, 0.2, 0.3], [1.0, 0.5, -0.1]])
def test_coefficients_outside_the_proof_are_refused(coefficients):
    with pytest.raises(ValueError, match="must not be negative"):
        sensitivity(np.array(coefficients), separation=2, max_participations=2)


@pytest.mark.parametrize(("separation", "participations"), [(0, 1), (1, 0), (-1, 1)])
def test_impossible_participations_are_refused(separation, participations):
    with pytest.raises(ValueError, match="at least 1"):
        sensitivity(square_root(4), separation=separation, max_participations=participations)


def test_integers_stay_integers():
    made = worst_column(np.array([4, 2, 1]), separation=1, max_participations=2)
    assert made.dtype == np.int64
    assert made.tolist() == [4, 6, 3]


def test_squared_errors_are_those_of_dense_prefix_sums():
    coefficients = BLT.coefficients(40)
    prefix = np.tril(np.ones((40, 40))) @ linalg.inv(dense(coefficients))
    np.testing.assert_allclose(squared_errors(coefficients), (prefix**2).sum(axis=1), rtol=1e-10)


# num_rows, separation, participations; independent, square root, BLT of two buffers: mean, maximum.
TABLE = [
    (256, 16, 16, (45.343, 64.0), (21.632, 22.947), (15.461, 20.166)),
    (1024, 64, 16, (90.554, 128.0), (23.896, 25.147), (17.219, 21.997)),
    (2000, 100, 20, (141.457, 200.0), (30.597, 32.095), (21.374, 27.372)),
]
BANDED = [
    (256, 16, 16, 16, (14.550, 19.109), 6.983),
    (1024, 64, 16, 64, (16.264, 20.874), 7.833),
    (2000, 100, 20, 64, (22.921, 30.172), 9.706),
]


@pytest.mark.parametrize(("num_rows", "b", "k", "independent", "root", "blt"), TABLE)
def test_errors_are_those_of_the_table(num_rows, b, k, independent, root, blt):
    run = {"separation": b, "max_participations": k}
    made = best_blt(num_rows=num_rows, num_buffers=2, **run)
    alone = np.where(np.arange(num_rows) < 1, 1.0, 0.0)
    rows = [(alone, independent), (square_root(num_rows), root)]
    for coefficients, golden in [*rows, (made.coefficients(num_rows), blt)]:
        error = prefix_error(coefficients, **run)
        assert (error.mean, error.maximum) == pytest.approx(golden, rel=1e-3)


def test_best_blt_has_the_buffers_of_the_table():
    made = best_blt(num_rows=1024, separation=64, max_participations=16, num_buffers=2)
    assert made.decays == pytest.approx((0.9746, 0.4397), abs=1e-3)
    assert made.scales == pytest.approx((0.3102, 0.2073), abs=1e-3)


@pytest.mark.parametrize(("num_rows", "b", "k", "bands", "golden", "norm"), BANDED)
def test_best_bands_are_those_of_the_table(num_rows, b, k, bands, golden, norm):
    run = {"separation": b, "max_participations": k}
    made = best_banded(num_rows=num_rows, num_bands=bands, **run)
    error = prefix_error(made, **run)
    assert (error.mean, error.maximum) == pytest.approx(golden, rel=1e-3)
    assert sensitivity(made, **run) == pytest.approx(norm, rel=1e-3)
    assert np.count_nonzero(made) == bands


def test_search_is_deterministic():
    run = {"num_rows": 200, "separation": 10, "max_participations": 20}
    assert best_blt(num_buffers=2, **run) == best_blt(num_buffers=2, **run)
    assert np.array_equal(best_banded(num_bands=8, **run), best_banded(num_bands=8, **run))


@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 6), st.data())
def test_best_bands_never_increase_and_beat_the_cut_square_root(num_rows, b, k, data):
    bands = data.draw(st.integers(1, min(b, num_rows)))
    run = {"separation": b, "max_participations": k}
    made = best_banded(num_rows=num_rows, num_bands=bands, **run)
    cut = np.where(np.arange(num_rows) < bands, square_root(num_rows), 0)
    assert made[0] == 1
    assert np.all(np.diff(made) <= 0)
    assert not np.any(made[bands:])
    assert prefix_error(made, **run).mean <= prefix_error(cut, **run).mean * (1 + 1e-9)


@pytest.mark.parametrize(("num_rows", "separation"), [(2, 1), (10, 1), (10, 30), (500, 2)])
def test_best_blt_is_valid_for_odd_runs(num_rows, separation):
    for num_buffers in (1, 2, 3, 4):
        best_blt(
            num_rows=num_rows,
            separation=separation,
            max_participations=3,
            num_buffers=num_buffers,
        )


@pytest.mark.parametrize(("num_rows", "separation", "bands"), [(20, 4, 5), (3, 4, 4), (20, 4, 0)])
def test_more_bands_than_separation_or_rows_are_refused(num_rows, separation, bands):
    with pytest.raises(ValueError, match="bands"):
        best_banded(num_rows=num_rows, separation=separation, max_participations=1, num_bands=bands)


@pytest.mark.parametrize(("num_rows", "num_buffers"), [(10, 0), (10, 5), (1, 1)])
def test_blt_without_buffers_or_rows_is_refused(num_rows, num_buffers):
    with pytest.raises(ValueError, match="BLT"):
        best_blt(num_rows=num_rows, separation=2, max_participations=2, num_buffers=num_buffers)


def test_gradients_are_those_of_finite_differences():
    coefficients = np.sort(np.random.default_rng(2).random(20))[::-1].copy()
    near = optimize.approx_fprime(coefficients, lambda c: toeplitz._log_loss(c, 4, 3)[0])
    np.testing.assert_allclose(toeplitz._log_loss(coefficients, 4, 3)[1], near, atol=1e-5)
    free = np.random.default_rng(3).normal(size=5)
    near = optimize.approx_fprime(free, lambda p: toeplitz._blt_loss(p, 100, 10, 5)[0])
    np.testing.assert_allclose(toeplitz._blt_loss(free, 100, 10, 5)[1], near, atol=1e-5)


@pytest.mark.parametrize(("num_rows", "b", "k"), [row[:3] for row in TABLE])
def test_quantised_matrices_lose_less_than_a_five_hundredth(num_rows, b, k):
    run = {"separation": b, "max_participations": k}
    options = [
        square_root(num_rows),
        best_blt(num_rows=num_rows, num_buffers=2, **run).coefficients(num_rows),
        best_banded(num_rows=num_rows, num_bands=min(b, 64), **run),
    ]
    for coefficients in options:
        steps = np.array(quantise(coefficients, shift=8)) / 256
        rounded = np.pad(steps, (0, num_rows - len(steps)))
        before, after = prefix_error(coefficients, **run), prefix_error(rounded, **run)
        assert after.mean < 1.002 * before.mean
        assert after.maximum < 1.002 * before.maximum


def test_quantised_coefficients_do_not_increase_and_end_above_zero():
    steps = quantise(BLT.coefficients(200), shift=8)
    assert steps[0] == 256
    assert steps[-1] == 1
    assert list(steps) == sorted(steps, reverse=True)
    assert len(steps) < 60

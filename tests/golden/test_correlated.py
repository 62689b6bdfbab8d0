"""Golden errors of correlated noise: the norms of the table, and what amplification is worth.

The error is the root mean square over the rounds of a prefix sum's noise, per clipping norm.
"""

import math

import pytest
from scipy.optimize import brentq

from feddp.common.privacy.accounting.calibration import calibrate
from feddp.common.privacy.accounting.epsilon import COARSE, epsilon
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    ZERO_OUT,
    Event,
    GaussianEvent,
    PoissonGaussianEvent,
)
from feddp.common.privacy.mechanism.toeplitz import (
    best_banded,
    best_blt,
    prefix_error,
    sensitivity,
    square_root,
)

DELTA = 1e-6

# (rounds, separation, participations): sensitivity of the square root and of the BLT of two
# buffers, whose decays and scales follow; a second buffer of no use is left out.
NORMS = [
    (256, 16, 16, 13.638, 7.609, (0.9018,), (0.5537,)),
    (1024, 64, 16, 13.901, 8.226, (0.9746, 0.4397), (0.3102, 0.2073)),
    (2000, 100, 20, 17.191, 9.718, (0.9846, 0.5738), (0.2529, 0.2565)),
]


@pytest.mark.parametrize(("rounds", "b", "k", "root", "blt", "decays", "scales"), NORMS)
def test_the_matrices_of_the_table_have_their_golden_norms(
    rounds: int,
    b: int,
    k: int,
    root: float,
    blt: float,
    decays: tuple[float, ...],
    scales: tuple[float, ...],
) -> None:
    apart = {"separation": b, "max_participations": k}
    made = best_blt(num_rows=rounds, num_buffers=2, **apart)
    assert sensitivity(square_root(rounds), **apart) == pytest.approx(root, rel=1e-4)
    assert sensitivity(made.coefficients(rounds), **apart) == pytest.approx(blt, rel=1e-3)
    if len(decays) == 2:
        assert made.decays == pytest.approx(decays, abs=2e-3)
        assert made.scales == pytest.approx(scales, abs=2e-3)
    else:
        alone = best_blt(num_rows=rounds, num_buffers=1, **apart)
        assert alone.decays == pytest.approx(decays, abs=2e-3)
        assert alone.scales == pytest.approx(scales, abs=2e-3)


def noise_for(event_of: object, count: int, target: float, relation: str) -> float:
    def spent(z: float, _: float) -> float:
        event: Event = event_of(z)  # type: ignore[operator]
        return epsilon([(event, count)], delta=DELTA, relation=relation, interval=COARSE)

    return calibrate(spent, target)


# (N, cohort, rounds, separation), epsilon: Poisson with independent noise, cyclic with bands (and
# how many), no amplification with a BLT, and with independent noise.
LARGE, DENSE, SMALL = (10_000, 100, 1000, 100), (10_000, 1000, 1000, 10), (2000, 200, 200, 10)
AMPLIFIED = {
    (LARGE, 0.5): (60.8, 60.0, 2, 98.3, 570),
    (LARGE, 1.0): (35.0, 32.9, 4, 51.5, 299),
    (LARGE, 2.0): (23.0, 18.9, 8, 27.2, 158),
    (LARGE, 4.0): (17.4, 11.5, 16, 14.6, 84.4),
    (LARGE, 8.0): (13.8, 7.2, 32, 8.0, 46.2),
    (DENSE, 1.0): (301, 302, None, 336, 945),
    (DENSE, 2.0): (160, 160, None, 177, 499),
    (DENSE, 4.0): (87.0, 86.7, None, 94.9, 267),
    (DENSE, 8.0): (49.7, 48.4, None, 51.9, 146),
    (SMALL, 1.0): (61.6, 62.4, None, 76.5, 189),
    (SMALL, 2.0): (33.6, 33.7, None, 40.4, 100),
    (SMALL, 4.0): (19.3, 18.9, None, 21.6, 53.5),
    (SMALL, 8.0): (12.2, 11.0, None, 11.8, 29.3),
}
POISSON_NOISE = {0.5: 2.717, 1.0: 1.566, 2.0: 1.030, 4.0: 0.779, 8.0: 0.617}
PRINTED = 7e-3  # of three digits
QUICK = {(LARGE, 2.0), (SMALL, 8.0)}
CASES = [pytest.param(*key, marks=() if key in QUICK else (pytest.mark.slow,)) for key in AMPLIFIED]


@pytest.mark.parametrize(("run", "target"), CASES)
def test_independent_noise_with_poisson_sampling_has_its_golden_error(
    run: tuple[int, int, int, int], target: float
) -> None:
    users, cohort, rounds, _ = run
    z = noise_for(
        lambda z: PoissonGaussianEvent(cohort / users, z), rounds, target, ADD_OR_REMOVE_ONE
    )
    if run == LARGE:
        assert z == pytest.approx(POISSON_NOISE[target], rel=1.5e-3)
    error = z * math.sqrt((rounds + 1) / 2)
    assert error == pytest.approx(AMPLIFIED[run, target][0], rel=PRINTED)


def exact_noise(target: float) -> float:
    """Of one Gaussian (Balle & Wang 2018), by our own bound."""

    def excess(z: float) -> float:
        return epsilon([(GaussianEvent(z), 1)], delta=DELTA, relation=ZERO_OUT) - target

    return float(brentq(excess, 0.4, 20.0, xtol=1e-5))


@pytest.mark.parametrize(("run", "target"), CASES)
def test_without_amplification_both_kinds_of_noise_have_their_golden_errors(
    run: tuple[int, int, int, int], target: float
) -> None:
    _, _, rounds, b = run
    k, z = math.ceil(rounds / b), exact_noise(target)
    *_, blt, independent = AMPLIFIED[run, target]
    made = best_blt(num_rows=rounds, separation=b, max_participations=k, num_buffers=2)
    error = prefix_error(made.coefficients(rounds), separation=b, max_participations=k)
    assert z * error.mean == pytest.approx(blt, rel=PRINTED)
    assert z * math.sqrt(k * (rounds + 1) / 2) == pytest.approx(independent, rel=PRINTED)
    if run == LARGE:
        norm = sensitivity(made.coefficients(rounds), separation=b, max_participations=k)
        assert norm == pytest.approx(6.175, rel=2e-3)


def cyclic_error(run: tuple[int, int, int, int], target: float, bands: int) -> float:
    """Groups and bands are as many: the cohort of a round stays the same."""
    users, cohort, rounds, _ = run
    q, turns = min(1.0, cohort * bands / users), math.ceil(rounds / bands)
    z = noise_for(lambda z: PoissonGaussianEvent(q, z), turns, target, ADD_OR_REMOVE_ONE)
    made = best_banded(num_rows=rounds, separation=bands, max_participations=1, num_bands=bands)
    return z * prefix_error(made, separation=bands, max_participations=1).mean


@pytest.mark.parametrize(("run", "target"), CASES)
def test_amplified_bands_have_their_golden_error(
    run: tuple[int, int, int, int], target: float
) -> None:
    _, golden, bands, *_ = AMPLIFIED[run, target]
    options = (bands,) if bands else (2, 4, 8)
    errors = {option: cyclic_error(run, target, option) for option in options}
    assert min(errors.values()) == pytest.approx(golden, rel=PRINTED)

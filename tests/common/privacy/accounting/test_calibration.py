"""Calibration: golden values, and the next smaller noise misses the target."""

from collections.abc import Callable

import pytest

from feddp.common.privacy.accounting.calibration import (
    MAX_NOISE_MULTIPLIER,
    MIN_NOISE_MULTIPLIER,
    calibrate,
    next_noise_multiplier,
)
from feddp.common.privacy.accounting.epsilon import COARSE, FINE, epsilon
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    REPLACE_ONE,
    ZERO_OUT,
    Charges,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)


def bound(q: float, z: float, rounds: int, delta: float, **interval: float) -> float:
    event = PoissonGaussianEvent(q, z)
    return epsilon([(event, rounds)], delta=delta, relation=ADD_OR_REMOVE_ONE, **interval)


def spent_by(
    charges_of: Callable[[float], Charges], delta: float, relation: str
) -> Callable[[float, float], float]:
    return lambda z, interval: epsilon(
        charges_of(z), delta=delta, relation=relation, interval=interval
    )


def calibrated(q: float, rounds: int, target: float, delta: float) -> float:
    spent = spent_by(lambda z: [(PoissonGaussianEvent(q, z), rounds)], delta, ADD_OR_REMOVE_ONE)
    return calibrate(spent, target)


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


FAMILIES = {
    "several coins": (lambda z: [(PoissonGaussianEvent(0.01, z, 3), 100)], ADD_OR_REMOVE_ONE),
    "fixed size": (lambda z: [(FixedSizeGaussianEvent(1000, 20, z), 100)], REPLACE_ONE),
    "no sampling": (lambda z: [(GaussianEvent(z), 1)], ZERO_OUT),
    "beside a given part": (
        lambda z: [(PoissonGaussianEvent(0.01, z), 100), (GaussianEvent(20.0), 1)],
        ADD_OR_REMOVE_ONE,
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_any_family_of_schedules_is_calibrated(name):
    charges_of, relation = FAMILIES[name]
    spent = spent_by(charges_of, 1e-5, relation)
    z = calibrate(spent, 4.0)
    assert spent(z, FINE) <= 4.0 < spent(z - 1e-4, FINE)


def test_the_next_noise_multiplier_is_one_step_of_the_grid():
    assert next_noise_multiplier(1.0) == 1.0001
    assert next_noise_multiplier(0.8191) == 0.8192

"""How far apart a unit's turns are where coins decide within a turn: what errs least."""

import math
from dataclasses import replace

import numpy as np

from feddp.common.privacy.accounting.calibration import estimate_noise_multiplier
from feddp.common.privacy.accounting.epsilon import COARSE
from feddp.common.privacy.mechanism.toeplitz import prefix_error
from feddp.common.privacy.plan.schedule import Schedule

MAX_TRIED = 10


def choose_separation(schedule: Schedule, noise_multiplier: float | None) -> Schedule:
    """The schedule with the separation whose prefix sums have the least mean error.

    More rounds between two turns let the bands cancel more noise, and make coins within a turn more
    certain, which amplifies less: neither end is best everywhere. Reads public numbers alone.

    **Edge cases:** with a single candidate, or if none keeps the target, it stays as it is, and the
    calibration says why.

    Args:
      schedule: of a mechanism with turns and coins, as the largest separation makes it.
      noise_multiplier: z as given; None: what each candidate needs for the target.
    """
    largest = schedule.cohorts.separation
    tried = np.unique(np.rint(np.geomspace(2, largest, MAX_TRIED)).astype(int)).tolist()
    made = [replace(schedule, cohorts=replace(schedule.cohorts, separation=b)) for b in tried]
    errors = [mean_error(candidate, noise_multiplier) for candidate in made]
    best = int(np.argmin(errors))
    return schedule if math.isinf(errors[best]) else made[best]


def mean_error(schedule: Schedule, noise_multiplier: float | None) -> float:
    """Root mean square error of the prefix sums, per coordinate and clipping norm.

    Args:
      schedule: of a mechanism whose noise is correlated, one event per turn.
      noise_multiplier: z as given; None: what the target needs.

    Returns:
      Infinite where the target is missed, or no noise keeps it.
    """
    if noise_multiplier is None:
        multiplier = estimate_noise_multiplier(schedule.spent, schedule.target_epsilon)
    else:
        keeps = schedule.spent(noise_multiplier, COARSE) <= schedule.target_epsilon
        multiplier = noise_multiplier if keeps else None
    if multiplier is None:
        return math.inf
    matrix = schedule.mechanism.choose_matrix(schedule.cohorts)
    assert matrix is not None  # the noise is correlated
    coefficients = np.zeros(schedule.cohorts.num_rounds)
    coefficients[: len(matrix.coefficients)] = matrix.coefficients
    separation = schedule.cohorts.separation
    scaled = coefficients / (1 << matrix.shift)
    return multiplier * prefix_error(scaled, separation=separation, max_participations=1).mean

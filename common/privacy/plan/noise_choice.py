"""The noise of a plan: the smallest multiplier that keeps the target, or a given one that does."""

import math
from dataclasses import dataclass, replace

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.bridge import MAX_GRID_STEPS, choose_grid_steps
from feddp.common.privacy.accounting.calibration import (
    MAX_NOISE_MULTIPLIER,
    MIN_NOISE_MULTIPLIER,
    calibrate,
    next_noise_multiplier,
)
from feddp.common.privacy.accounting.epsilon import COARSE
from feddp.common.privacy.mechanism.noise import MAX_SCALE
from feddp.common.privacy.mechanism.noise_matrix import NoiseMatrix
from feddp.common.privacy.mechanism.quantile import Clipping, QuantileClipping
from feddp.common.privacy.plan.schedule import Reasons, Schedule


@dataclass(frozen=True)
class Noise:
    """The noise of a run, and what the run costs under it.

    Attributes:
      multiplier: z, noise standard deviation over clipping norm.
      grid_steps: K, integer steps per clipping norm.
      matrix: what makes the noise correlated; None where it is not.
      epsilon: upper bound over the whole schedule, with what the discrete noise adds.
      bridge_epsilon: what the discrete noise adds to epsilon; 0 except for a large epsilon.
      bridge_delta: the share of delta that the discrete noise takes.
    """

    multiplier: float
    grid_steps: int
    matrix: NoiseMatrix | None
    epsilon: float
    bridge_epsilon: float
    bridge_delta: float


def choose_noise(
    schedule: Schedule, noise_multiplier: float | None, clipping: Clipping
) -> tuple[Noise, Reasons]:
    """Calibrates the noise, or checks what was given; and why its numbers are what they are.

    **Guarantee:** epsilon of the whole schedule under the result, with what the discrete noise
    adds, is at most the target; bridge_delta is at most a hundredth of delta.

    Args:
      schedule: who is drawn how often.
      noise_multiplier: z, noise standard deviation over clipping norm; None calibrates it.
      clipping: where its norm adapts, a clip bit shares the noise.

    Raises:
      ConfigError: the target is out of reach or missed, or the clip bit's noise is too small.
    """
    num_charges = schedule.cohorts.num_charges
    if noise_multiplier is None:
        # A target that no grid serves is refused here, before a calibration that would take long.
        _grid_steps(schedule, MAX_SCALE / MAX_GRID_STEPS)
        multiplier = _calibrate(schedule)
        while _total(schedule, multiplier) > schedule.target_epsilon:
            multiplier = next_noise_multiplier(multiplier)
        reason = f"smallest with epsilon <= {schedule.target_epsilon:g} over {num_charges} charges"
    else:
        multiplier, reason = float(noise_multiplier), "given"
        _check_noise(schedule, multiplier)
    _check_bit(multiplier, clipping.quantile)
    steps, spent = _grid_steps(schedule, multiplier), schedule.spent(multiplier)
    added_epsilon, added_delta = schedule.bridge(spent, math.ceil(multiplier * steps))
    if spent + added_epsilon > schedule.target_epsilon:
        raise _misses_target(schedule, multiplier, spent + added_epsilon)
    noise = Noise(
        multiplier=multiplier,
        grid_steps=steps,
        matrix=schedule.mechanism.choose_matrix(schedule.cohorts),
        epsilon=spent + added_epsilon,
        bridge_epsilon=added_epsilon,
        bridge_delta=added_delta,
    )
    return noise, {
        "noise_multiplier": reason,
        "grid_steps": "smallest whose discrete noise takes at most delta/100",
        "epsilon": (
            f"{schedule.accountant.upper()} bound over {num_charges} charges at delta "
            f"{schedule.accounting_delta:.3g}"
        ),
    }


def _grid_steps(schedule: Schedule, multiplier: float) -> int:
    return choose_grid_steps(
        noise_multiplier=multiplier,
        num_charges=schedule.cohorts.num_charges,
        dimension=schedule.dimension,
        epsilon=schedule.target_epsilon,
        delta=schedule.delta,
    )


def _total(schedule: Schedule, multiplier: float) -> float:
    """Epsilon of the whole schedule with what the discrete noise adds."""
    spent = schedule.spent(multiplier)
    scale = math.ceil(multiplier * _grid_steps(schedule, multiplier))
    return spent + schedule.bridge(spent, scale)[0]


def _check_bit(multiplier: float, quantile: QuantileClipping | None) -> None:
    if quantile is not None and multiplier >= 2 * quantile.bit_noise:
        raise ConfigError(
            [
                f"privacy.clipping-bit-noise = {quantile.bit_noise:g}: must be above half the "
                f"noise multiplier, {multiplier / 2:g}, so that noise is left for the update. "
                "Raise it, or the cohort."
            ]
        )


def _check_noise(schedule: Schedule, multiplier: float) -> None:
    """Refuses a given noise multiplier that is out of range or misses the target."""
    if not MIN_NOISE_MULTIPLIER <= multiplier <= MAX_NOISE_MULTIPLIER:
        raise ConfigError(
            [
                f"privacy.noise-multiplier = {multiplier:g}: must be from {MIN_NOISE_MULTIPLIER:g} "
                f'to {MAX_NOISE_MULTIPLIER:g}. Leave it "auto" to have it calibrated.'
            ]
        )
    # Far above the target the coarse bound decides: the fine one could need gigabytes there.
    spent = schedule.spent(multiplier, COARSE)
    if spent <= 2 * schedule.target_epsilon + 1:
        spent = schedule.spent(multiplier)
    if spent > schedule.target_epsilon:
        raise _misses_target(schedule, multiplier, spent)


def _misses_target(schedule: Schedule, multiplier: float, spent: float) -> ConfigError:
    return ConfigError(
        [
            f"privacy.noise-multiplier = {multiplier:g}: gives epsilon {spent:.3f} over "
            f"{schedule.cohorts.num_charges} charges, above privacy.target-epsilon = "
            f'{schedule.target_epsilon:g}. Raise either, or leave it "auto".'
        ]
    )


def _calibrate(schedule: Schedule) -> float:
    """The smallest noise multiplier that keeps the target, or a ConfigError that gives advice."""
    target, cohort = schedule.target_epsilon, schedule.cohorts.size
    population = schedule.cohorts.population
    if (least := schedule.spent(MAX_NOISE_MULTIPLIER)) <= target:
        return calibrate(schedule.spent, target)
    smaller = _round_down(cohort / 2)
    while smaller > 1 and _least(schedule, smaller) > target:
        smaller = _round_down(smaller / 2)
    advice = (
        f"A cohort of {smaller:g} (sampling.expected-cohort-size) reaches it, under very much noise"
        if smaller > 1
        else "No cohort of these users reaches it"
    )
    raise ConfigError(
        [
            f"privacy.target-epsilon = {target:g}: out of reach for a cohort of {cohort:g} of "
            f"{population.num_units} {population.sampling_unit}s over "
            f"{schedule.cohorts.num_charges} charges; the most noise that feddp "
            f"adds ({MAX_NOISE_MULTIPLIER:g} C) gives {least:.3g}. {advice}; fewer rounds, more "
            "users or a larger target help."
        ]
    )


def _least(schedule: Schedule, size: float) -> float:
    """Epsilon of smaller cohorts under the most noise."""
    smaller = replace(schedule, cohorts=replace(schedule.cohorts, size=size))
    return smaller.spent(MAX_NOISE_MULTIPLIER)


def _round_down(value: float) -> float:
    """To three digits, so that a printed number is the one that was tried.

    >>> _round_down(15.678)
    15.6
    """
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.floor(value / step) * step:.3g}")

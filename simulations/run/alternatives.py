"""What more would buy: the noise of other cohorts, rounds and ranks at the same promise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.calibration import estimate_noise_multiplier
from feddp.common.privacy.mechanism.quantile import Clipping
from feddp.common.privacy.mechanism.toeplitz import squared_errors
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.schedule import Schedule

FACTORS = (0.5, 2.0, 4.0)
COHORT, ROUNDS, RANK = "cohort", "rounds", "rank"
_GRID_STEPS = 1 << 20


@dataclass(frozen=True)
class Alternative:
    """One change of a plan, at its epsilon and delta.

    Attributes:
      change: what is changed, "cohort", "rounds" or "rank"; "" for the plan as it is.
      value: what it is changed to.
      noise_multiplier: z that the target needs, to three digits.
      noise: expected L2 norm of the noise in the mean of all released updates, over C.
      compute: units trained in the whole run, over those of the plan.
    """

    change: str
    value: float
    noise_multiplier: float
    noise: float
    compute: float


def alternatives(plan: PrivacyPlan, dimensions: Mapping[int, int], rank: int) -> list[Alternative]:
    """The plan, and what half, twice and four times its cohort, rounds or rank would do.

    Reads public numbers alone. What cannot be, such as a cohort beyond N, is left out.

    Args:
      plan: whose target stays.
      dimensions: trained numbers by rank, of the ranks to be shown.
      rank: of the plan.
    """
    schedule, given = plan.schedule, plan.noise_multiplier
    found = [Alternative("", 0.0, given, _noise(schedule, given, plan.dimension), 1.0)]
    units = schedule.cohorts.size * schedule.cohorts.num_rounds
    for change, value, other in _changed(schedule):
        multiplier = estimate_noise_multiplier(other.spent, other.target_epsilon)
        if multiplier is not None:
            noise = _noise(other, multiplier, plan.dimension)
            compute = other.cohorts.size * other.cohorts.num_rounds / units
            found.append(Alternative(change, value, multiplier, noise, compute))
    for other_rank, dimension in sorted(dimensions.items()):
        if other_rank != rank:
            noise = _noise(schedule, given, dimension)
            found.append(Alternative(RANK, other_rank, given, noise, 1.0))
    return found


def _changed(schedule: Schedule) -> Iterator[tuple[str, float, Schedule]]:
    """Other cohorts and other numbers of rounds, as far as the mechanism allows them."""
    cohorts, mechanism = schedule.cohorts, schedule.mechanism
    num_units = cohorts.population.num_units
    sizes = {min(cohorts.size * factor, float(num_units)) for factor in FACTORS} - {cohorts.size}
    for wanted in sorted(sizes):
        asked = math.floor(wanted) if cohorts.size == int(cohorts.size) else wanted
        size, separation = mechanism.arrange(num_units, max(asked, 1), None)
        other = replace(cohorts, size=size, separation=min(separation, cohorts.num_rounds))
        if size != cohorts.size and not mechanism.number_problems(other):
            yield COHORT, size, replace(schedule, cohorts=other)
    for factor in FACTORS:
        rounds = math.ceil(cohorts.num_rounds * factor)
        other = replace(cohorts, num_rounds=rounds, num_charges=rounds)
        if rounds != cohorts.num_rounds and not mechanism.number_problems(other):
            yield ROUNDS, rounds, replace(schedule, cohorts=other)


def _noise(schedule: Schedule, multiplier: float, dimension: int) -> float:
    """Expected L2 norm of the noise in the mean of all rounds' updates, over the clipping norm."""
    cohorts = schedule.cohorts
    matrix = schedule.mechanism.choose_matrix(cohorts)
    noised = schedule.mechanism.make(
        cohorts,
        Clipping(1.0, None),
        noise_multiplier=multiplier,
        grid_steps=_GRID_STEPS,
        dimension=dimension,
        matrix=matrix,
    )
    coefficients = np.zeros(cohorts.num_rounds)
    coefficients[: 1 if matrix is None else len(matrix.coefficients)] = (
        1 if matrix is None else matrix.coefficients
    )
    of_sum = noised.noise_scale / _GRID_STEPS * math.sqrt(float(squared_errors(coefficients)[-1]))
    return of_sum / cohorts.num_rounds * math.sqrt(dimension) / cohorts.size


def alternative_lines(plan: PrivacyPlan, found: Sequence[Alternative]) -> list[str]:
    """The table, with the noise and the compute of each against the plan's."""
    lines = [
        f"What more would buy at epsilon {plan.target_epsilon:g} (noise: of the mean of all "
        "released updates, over C)",
        f"  {'':<16} {'multiplier':>10} {'noise':>9} {'of plan':>8} {'compute':>8}",
    ]
    for item in found:
        name = f"{item.change} {item.value:g}" if item.change else "this plan"
        lines.append(
            f"  {name:<16} {item.noise_multiplier:>10.4g} {item.noise:>9.4g} "
            f"{100 * item.noise / found[0].noise:>6.0f} % {item.compute:>7.3g}x"
        )
    return lines


def draw_alternatives(plan: PrivacyPlan, found: Sequence[Alternative], path: Path) -> None:
    """Draws noise against compute, a line for each of cohort, rounds and rank.

    Args:
      plan: at whose target it is.
      found: from `alternatives`.
      path: of the picture; its ending, .png or .svg, decides the format.

    Raises:
      ConfigError: another ending, or it cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from feddp.simulations.run.pictures import BLUE, GREY, RED, STYLE, tick

    if path.suffix not in (".png", ".svg"):
        raise ConfigError([f"--picture {path}: must end in .png or .svg."])
    with rc_context({**STYLE, "text.color": "#333333"}):
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axis = figure.subplots()
        for change, colour in ((COHORT, BLUE), (ROUNDS, RED), (RANK, GREY)):
            points = [item for item in found if item.change in ("", change)]
            points.sort(key=lambda item: item.compute)
            shares = [item.noise / found[0].noise for item in points]
            axis.plot([item.compute for item in points], shares, "o-", color=colour, label=change)
        axis.set_xscale("log")
        tick(axis.xaxis, sorted({item.compute for item in found}))
        axis.set_xlabel("units trained, over those of this plan")
        axis.set_ylabel("noise of the mean, over that of this plan")
        axis.set_title(f"What more would buy at epsilon {plan.target_epsilon:g}")
        axis.legend()
        try:
            figure.savefig(path, dpi=150, facecolor="white")
        except OSError as error:
            raise ConfigError(
                [f"--picture {path}: cannot be written ({error.strerror})."]
            ) from error

"""What the mechanisms with correlated noise have in common: units take turns."""

import math

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population, one_coin_problems
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian
from feddp.common.privacy.mechanism.noise_matrix import NoiseMatrix
from feddp.common.privacy.mechanism.participation import Participation
from feddp.common.privacy.mechanism.quantile import Clipping


def default_separation(num_units: int, size: float) -> int:
    """N / cohort, at least 2.

    >>> default_separation(1000, 60.0)
    16
    """
    return max(2, math.floor(num_units / size))


def correlation_problems(
    mechanism: str, population: Population, *, is_noised_by_nodes: bool, is_adaptive: bool
) -> list[str]:
    """What correlated noise cannot be combined with."""
    problems = []
    if is_adaptive:
        problems.append(
            f'privacy.clipping = "quantile": correlated noise of privacy.mechanism = "{mechanism}" '
            'cancels under one norm alone. Set privacy.clipping = "fixed".'
        )
    problems += one_coin_problems(mechanism, population)
    if is_noised_by_nodes:
        problems.append(
            f'privacy.mechanism = "{mechanism}": correlated noise is made in one place. Take '
            'privacy.trust = "server" or privacy.mechanism = "poisson".'
        )
    return problems


def separation_problems(cohorts: Cohorts) -> list[str]:
    """A separation of less than 2 or of more than the rounds is none."""
    if 2 <= cohorts.separation <= cohorts.num_rounds:
        return []
    return [
        f"sampling.separation = {cohorts.separation}: must be from 2 to the number of rounds, "
        f'{cohorts.num_rounds}. Take privacy.mechanism = "poisson" for fewer or larger cohorts.'
    ]


def correlated_gaussian(
    cohorts: Cohorts,
    clipping: Clipping,
    participation: Participation,
    *,
    noise_multiplier: float,
    grid_steps: int,
    dimension: int,
    matrix: NoiseMatrix | None,
) -> CorrelatedGaussian:
    """The mechanism with the numbers of a plan.

    Raises:
      ValueError: no matrix.
    """
    if matrix is None:
        raise ValueError("correlated noise needs its matrix")
    return CorrelatedGaussian(
        num_units=cohorts.population.num_units,
        expected_cohort_size=cohorts.size,
        clipping_norm=clipping.norm,
        noise_multiplier=noise_multiplier,
        grid_steps=grid_steps,
        dimension=dimension,
        coefficients=matrix.coefficients,
        num_rounds=cohorts.num_rounds,
        num_spare=matrix.num_spare,
        participation=participation,
        shift=matrix.shift,
    )

"""The matrix of a run with correlated noise: chosen by the schedule, fixed in the plan."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from feddp.common.privacy.mechanism.correlated import SHIFT
from feddp.common.privacy.mechanism.participation import (
    CyclicPoisson,
    FixedSeparation,
    Participation,
)
from feddp.common.privacy.mechanism.toeplitz import best_banded, best_blt, quantise
from feddp.common.privacy.plan.schedule import BLT, CYCLIC_POISSON, Schedule

NUM_BUFFERS = 2  # more gain next to nothing
MAX_BANDS = 64  # more cost memory of the round state, and gain next to nothing


@dataclass(frozen=True)
class NoiseMatrix:
    """What makes the noise of a run correlated; public.

    Attributes:
      coefficients: of the Toeplitz matrix, integers; the first is 2^shift.
      shift: bits of the quantisation.
      num_spare: burned attempts that its sensitivity covers.
    """

    coefficients: tuple[int, ...]
    shift: int
    num_spare: int

    def to_body(self) -> dict[str, Any]:
        """As it stands in plan.json."""
        return asdict(self) | {"coefficients": list(self.coefficients)}


def matrix_from_body(body: Mapping[str, Any]) -> NoiseMatrix:
    """Reads `to_body` back.

    Raises:
      TypeError, KeyError: other fields.
    """
    return NoiseMatrix(**dict(body) | {"coefficients": tuple(body["coefficients"])})


def choose_matrix(schedule: Schedule) -> NoiseMatrix:
    """The matrix with the least mean error of the prefix sums for this schedule.

    A BLT of two buffers, cut to the rounds of the run; a banded matrix otherwise, whose bands never
    reach from one participation of a user to her next.
    """
    rounds, apart = schedule.num_rounds, schedule.separation
    if schedule.mechanism == BLT:
        most = math.ceil(rounds / apart)
        found = best_blt(
            num_rows=rounds, separation=apart, max_participations=most, num_buffers=NUM_BUFFERS
        ).coefficients(rounds)
    else:
        found = best_banded(
            num_rows=rounds,
            separation=apart,
            max_participations=1
            if schedule.mechanism == CYCLIC_POISSON
            else math.ceil(rounds / apart),
            num_bands=min(apart, rounds, MAX_BANDS),
        )
    return NoiseMatrix(
        quantise(found, shift=SHIFT), SHIFT, schedule.num_charges - schedule.num_rounds
    )


def participation_rule(
    mechanism: str, *, num_rounds: int, separation: int, sampling_probability: float
) -> Participation:
    """How often, and how far apart, a user takes part.

    Args:
      mechanism: one of `schedule.CORRELATED`.
      num_rounds: T.
      separation: rounds between two participations.
      sampling_probability: of a coin when the turn has come; of no effect without coins.
    """
    if mechanism == CYCLIC_POISSON:
        return CyclicPoisson(separation, sampling_probability)
    return FixedSeparation(separation, math.ceil(num_rounds / separation))
